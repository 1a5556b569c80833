//! Volumes in containers of Debian's runc 1.1 and 1.3 and of crun: what their mounts keep of a volume's flags, as
//! docs/SECURITY.md says, that nothing depends on it, pods with a user namespace, and volumes that follow a tag. Needs root.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use crate::support::archive::archive;
use crate::support::container::share;
use crate::support::driver::Machine;
use crate::support::images::{Image, Layout, layout_from_dirs};
use crate::support::pod_users::write_users;
use crate::support::registry::{Options, Registry};
use crate::support::runtimes::{Container, Runtime};
use crate::support::wait::eventually;

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_gives_no_rights_whatever_its_container_s_mount_keeps() {
    let source = tempfile::tempdir().unwrap();
    fs::set_permissions(source.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::copy("/usr/bin/id", source.path().join("id")).unwrap();
    fs::set_permissions(source.path().join("id"), fs::Permissions::from_mode(0o4755)).unwrap();
    let layout = layout_from_dirs(&[source.path()]);
    let layouts = format!("--layout-dir={}", layout.path().display());
    for (arguments, noexec, user) in [
        // As it was, and as it is where the operator keeps them.
        (&["--keep-privileges"][..], false, "0"),
        (&[], false, "65534"),
        (&[], true, "Permission denied"),
    ] {
        let machine = Machine::new(&[&[layouts.as_str()], arguments].concat());
        let plugin = machine.start().await;
        let mut request = machine.publish("pod", &layout.reference("latest"));
        request.volume_context.insert("noexec".to_owned(), noexec.to_string());
        plugin.node.clone().node_publish_volume(request).await.unwrap();
        let volume = machine.target("pod");
        let all: &[&str] =
            if noexec { &["ro", "nosuid", "nodev", "noexec"] } else { &["ro", "nosuid", "nodev"] };
        for runtime in Runtime::ALL {
            let container = Container::new(runtime, None);
            // What kubelet's `readOnly: true` becomes.
            let is_crun = runtime == Runtime::Crun;
            let kept = if is_crun { all } else { &["ro"] };
            let flags = container.flags(&volume, &["ro"]);
            assert_eq!(flags, kept, "{runtime:?}: the claim of docs/SECURITY.md");
            let user = if is_crun && user == "0" { "65534" } else { user };
            let (_, said) = container.run(&volume, &["ro"], "/volume/id -u");
            assert!(said.contains(user), "{runtime:?}, {arguments:?}, noexec {noexec}: {said}");
            assert!(user != "65534" || said.trim() == user, "{said}");
            // Without it, and with `recursiveReadOnly`.
            if is_crun {
                // The filesystem is read-only all the same.
                assert_eq!(container.flags(&volume, &[]), ["rw"], "{runtime:?}");
                continue;
            }
            for options in [&[][..], &["rro"]] {
                assert_eq!(container.flags(&volume, options), all, "{runtime:?} {options:?}");
            }
        }
        plugin.node.clone().node_unpublish_volume(machine.unpublish("pod")).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_with_a_user_namespace_start_and_see_their_own_owners() {
    const FIRST: u32 = 131_072;
    let source = tempfile::tempdir().unwrap();
    fs::create_dir_all(source.path().join("secret")).unwrap();
    fs::write(source.path().join("secret/key"), "k".repeat(5000)).unwrap();
    fs::write(source.path().join("file"), "text").unwrap();
    std::os::unix::fs::chown(source.path().join("file"), Some(1000), Some(1001)).unwrap();
    std::os::unix::fs::symlink("secret/key", source.path().join("link")).unwrap();
    for (name, mode) in [("", 0o755), ("secret", 0o700), ("secret/key", 0o600), ("file", 0o644)] {
        fs::set_permissions(source.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    let layout = layout_from_dirs(&[source.path()]);
    let machine = Machine::new(&[&format!("--layout-dir={}", layout.path().display())]);
    let plugin = machine.start().await;
    let script = "stat -c %u:%g:%a /volume /volume/secret/key /volume/file; wc -c </volume/link; \
                  touch /volume/new || touch /volume/secret/new || echo read-only";
    for (number, runtime) in [Runtime::Runc, Runtime::Crun].into_iter().enumerate() {
        let (pod, first) = (format!("pod-{number}"), FIRST << number);
        plugin
            .node
            .clone()
            .node_publish_volume(machine.publish(&pod, &layout.reference("latest")))
            .await
            .unwrap();
        let (container, volume) = (Container::new(runtime, Some(first)), machine.target(&pod));
        // Before kubelet has chosen users, which it does before it starts anything.
        let (started, said) = container.run(&volume, &["ro"], "echo started");
        assert!(!started && said.to_lowercase().contains("invalid argument"), "{runtime:?}: {said}");
        write_users(&machine.path().join("kubelet/pods").join(&pod), first);
        let deadline = Instant::now() + Duration::from_secs(120);
        while !container.run(&volume, &["ro"], "echo started").0 {
            assert!(Instant::now() < deadline, "{runtime:?}: no container starts\n{}", machine.log());
            std::thread::sleep(Duration::from_millis(50));
        }
        // Without `readOnly` in the pod, with it, and with `recursiveReadOnly`; each is a container that starts again.
        for options in [&["rw"][..], &["ro"], &["rro"], &[]] {
            let (started, said) = container.run(&volume, options, script);
            assert!(started, "{runtime:?} {options:?}: {said}");
            let lines: Vec<&str> = said.lines().collect();
            assert_eq!(
                lines[..4],
                ["0:0:755", "0:0:600", "1000:1001:644", "5000"],
                "{runtime:?} {options:?}: {said}"
            );
            assert!(said.contains("read-only\n") && said.contains("Read-only file system"), "{said}");
        }
        plugin.node.clone().node_unpublish_volume(machine.unpublish(&pod)).await.unwrap();
    }
    machine.assert_nothing_published();
}

/// Whether a process of a container has `word` in its command line: then its mounts are made.
fn runs(word: &str) -> bool {
    let lines =
        fs::read_dir("/proc").unwrap().filter_map(|entry| fs::read(entry.ok()?.path().join("cmdline")).ok());
    lines.map(|line| String::from_utf8_lossy(&line).into_owned()).any(|line| line.contains(word))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_container_sees_the_image_to_which_its_volume_has_gone_on() {
    let registry = Registry::start(Options::default());
    let show = |version: usize| {
        let content = version.to_string().repeat(5000);
        let layout = Layout::of(&Image::new(vec![archive(&[("file", content.as_bytes())])]));
        registry.push(&layout.reference("latest"), "team/app:live", &[])
    };
    let reference = show(0);
    let machine =
        Machine::new(&[&format!("--insecure-registry={}", registry.host()), "--follow-interval=3600"]);
    share(&machine.path().join("kubelet"));
    let plugin = machine.start().await;
    let mut request = machine.publish("pod", &reference);
    request.volume_context.insert("follow".to_owned(), "true".to_owned());
    plugin.node.clone().node_publish_volume(request).await.unwrap();
    let mut version = 0;
    for runtime in Runtime::ALL {
        // Without `readOnly` in the pod, and with it.
        for options in [&["rslave", "rw"], &["rslave", "ro"]] {
            let (old, word) = (version, format!("follower-{}-{version}", std::process::id()));
            version += 1;
            let script = format!(
                "exec 3</volume/current/file; i=0; \
                 until grep -q ^{version} /volume/current/file || [ $i -gt 2400 ]; do i=$((i+1)); sleep 0.05; done; \
                 head -c1 <&3; head -c1 /volume/current/file; touch /volume/x /volume/current/x; : {word}"
            );
            let volume = machine.target("pod");
            let container = tokio::task::spawn_blocking(move || {
                Container::new(runtime, None).run(&volume, options, &script)
            });
            eventually("the container runs", || container.is_finished() || runs(&word)).await;
            show(version);
            let list = machine.run(&["refresh"]);
            let (ended, said) = container.await.unwrap();
            assert!(ended && said.starts_with(&format!("{old}{version}")), "{runtime:?}: {said}\n{list}");
            assert_eq!(said.matches("Read-only file system").count(), 2, "{runtime:?}: {said}");
        }
    }
    plugin.node.clone().node_unpublish_volume(machine.unpublish("pod")).await.unwrap();
    machine.assert_nothing_published();
}
