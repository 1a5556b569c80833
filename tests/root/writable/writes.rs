//! What a pod can do, and that nobody else sees it.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::process::Command;

use super::{
    MIB, container, layout, machine, names, owner_and_mode, publish, stats, unpublish, used, writable,
};
use crate::support::archive::noise;
use crate::support::driver::with_the_charts_rights;

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_changes_its_volume_and_nobody_elses() {
    let layout = layout();
    let machine = machine(&layout);
    let plugin = machine.start_by(&container()).await;
    let image = layout.reference("latest");
    let plain = publish(&plugin, machine.publish("plain", &image)).await.unwrap();
    let mine = publish(&plugin, writable(&machine, "mine", &image, "16Mi")).await.unwrap();
    let other = publish(&plugin, writable(&machine, "other", &image, "16Mi")).await.unwrap();

    let all = ["again", "data", "home", "linked"];
    assert_eq!(names(&mine), all);
    assert_eq!(owner_and_mode(&mine), (7, 8, 0o1771), "the root is as in the image");
    assert_eq!(fs::metadata(&mine).unwrap().mtime(), fs::metadata(&plain).unwrap().mtime());
    let (bytes, inodes) = used(&plugin, &machine, "mine").await;
    assert_eq!(bytes, 0, "nothing is written yet, and nothing but the root is there: {inodes} inodes");

    // Modes, owners and names: no data is copied.
    fs::set_permissions(mine.join("data/big"), fs::Permissions::from_mode(0o600)).unwrap();
    chown(mine.join("data/big"), Some(1000), Some(1000)).unwrap();
    fs::rename(mine.join("data"), mine.join("moved")).unwrap();
    fs::rename(mine.join("moved/deep"), mine.join("moved/deeper")).unwrap();
    assert_eq!(owner_and_mode(&mine.join("moved/big")), (1000, 1000, 0o600));
    assert!(fs::read(mine.join("moved/big")).unwrap() == noise("writable", MIB as usize));
    assert!(fs::read(mine.join("moved/deeper/big")).unwrap() == noise("deep", 100_000));
    assert_eq!(used(&plugin, &machine, "mine").await.0, 0, "only names and modes have changed");

    // Data: of what is changed only.
    let mut big = fs::OpenOptions::new().append(true).open(mine.join("moved/big")).unwrap();
    big.write_all(b"more").unwrap();
    drop(big);
    assert!(used(&plugin, &machine, "mine").await.0 >= MIB as i64);
    let longer = [noise("writable", MIB as usize), b"more".to_vec()].concat();
    assert!(fs::read(mine.join("moved/big")).unwrap() == longer);
    // Names of a link stay names of one file.
    fs::write(mine.join("linked"), "both").unwrap();
    assert_eq!(fs::read(mine.join("again")).unwrap(), b"both");
    // What is removed is gone, and its name is free, also where the format has names of its own (00 to ff).
    fs::remove_file(mine.join("moved/small")).unwrap();
    fs::create_dir(mine.join("moved/small")).unwrap();
    for name in ["00", "ff", "data"] {
        fs::create_dir(mine.join(name)).unwrap();
        assert_eq!(names(&mine.join(name)), [""; 0], "{name}");
    }
    fs::write(mine.join("new"), "new").unwrap();
    let run = mine.join("run");
    fs::write(&run, "#!/bin/sh\nexit 7\n").unwrap();
    fs::set_permissions(&run, fs::Permissions::from_mode(0o755)).unwrap();
    let status = loop {
        // A child of another test may have the file open for writing until it is a program of its own.
        match Command::new(&run).status() {
            Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => std::thread::yield_now(),
            other => break other.unwrap(),
        }
    };
    assert_eq!(status.code(), Some(7));

    for untouched in [&plain, &other] {
        assert_eq!(names(untouched), all);
        assert_eq!(names(&untouched.join("data")), ["big", "deep", "small"]);
        assert!(fs::read(untouched.join("data/big")).unwrap() == noise("writable", MIB as usize));
        assert_eq!(owner_and_mode(&untouched.join("data/big")), (0, 0, 0o644));
        assert!(fs::read(untouched.join("again")).unwrap() == noise("linked", 50_000));
    }
    assert!(fs::write(plain.join("new"), "x").is_err(), "who has not asked for it does not write");
    assert_eq!(machine.run(&["verify"])["damaged"].as_array().map_or(0, Vec::len), 0);

    let message = stats(&plugin, &machine, "mine").await.volume_condition.unwrap().message;
    assert!(message.starts_with("writable, ") && message.contains("level fetch"), "{message}");
    for pod in ["plain", "mine", "other"] {
        unpublish(&plugin, &machine, pod).await;
    }
    machine.assert_nothing_published();
}

/// Who is not root in the pod writes where the image lets its user, and the kernel does so with the plugin's few rights.
#[tokio::test(flavor = "multi_thread")]
async fn a_user_writes_where_the_image_lets_that_user() {
    let layout = layout();
    let machine = machine(&layout);
    let plugin = machine.start_by(&container()).await;
    let target =
        publish(&plugin, writable(&machine, "pod", &layout.reference("latest"), "8Mi")).await.unwrap();
    let script = r#"
        set -e
        echo more >>home/file
        chmod 640 home/file; chmod 700 home/file
        mkdir home/new; echo x >home/new/x; mv home/new home/moved; rm -r home/moved
        ln -s file home/link; touch -d 2001-01-01 home/link home/file; touch home/mine
        ! echo x >>data/small 2>/dev/null
        ! chmod 777 data/small 2>/dev/null
        ! touch new 2>/dev/null
    "#;
    let user = ["--reuid=1000", "--regid=1001", "--clear-groups", "sh", "-c", script];
    let output = Command::new("setpriv").args(user).current_dir(&target).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(owner_and_mode(&target.join("home")), (1000, 1001, 0o2750));
    assert_eq!(owner_and_mode(&target.join("home/file")), (1000, 1001, 0o700));
    assert_eq!(owner_and_mode(&target.join("home/mine")), (1000, 1001, 0o644));
    assert!(
        fs::read(target.join("home/file")).unwrap() == [noise("home", 5000), b"more\n".to_vec()].concat()
    );
    unpublish(&plugin, &machine, "pod").await;
    drop(plugin);

    // With less, a pod would find files that it cannot change.
    let plugin = machine.start_by(&with_the_charts_rights(&[])).await;
    let status =
        publish(&plugin, writable(&machine, "pod", &layout.reference("latest"), "8Mi")).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::FailedPrecondition, "{status}");
    assert!(status.message().contains("capabilities DAC_READ_SEARCH, SETFCAP,"), "{status}");
    machine.assert_nothing_published();
}

/// Several images, a part of one, and a directory of one: what is written over is what a volume shows.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_volume_shows_can_be_written_over() {
    let layout = layout();
    let machine = machine(&layout);
    let plugin = machine.start().await;
    let image = layout.reference("latest");
    let mut many = writable(&machine, "many", &image, "4Mi");
    many.volume_context.remove("image");
    let list =
        serde_json::json!([{"image": image, "at": "a"}, {"image": image, "at": "b", "include": "linked"}]);
    many.volume_context.insert("images".to_owned(), list.to_string());
    let mut below = writable(&machine, "below", &image, "4Mi");
    below.volume_context.insert("path".to_owned(), "data".to_owned());
    let mut part = writable(&machine, "part", &image, "4Mi");
    part.volume_context.insert("exclude".to_owned(), "data/big".to_owned());
    for (request, shown, file) in [
        (many, vec!["a", "b"], "b/linked"),
        (below, vec!["big", "deep", "small"], "big"),
        (part, vec!["again", "data", "home", "linked"], "data/small"),
    ] {
        let target = publish(&plugin, request.clone()).await.unwrap();
        assert_eq!(names(&target), shown);
        fs::write(target.join(file), "changed").unwrap();
        fs::write(target.join("new"), "new").unwrap();
        // Kubelet asks again.
        publish(&plugin, request).await.unwrap();
        assert_eq!(fs::read(target.join(file)).unwrap(), b"changed");
        assert_eq!(names(&target).len(), shown.len() + 1);
    }
    for pod in ["many", "below", "part"] {
        unpublish(&plugin, &machine, pod).await;
    }
    machine.assert_nothing_published();
}
