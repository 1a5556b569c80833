//! Pins with a reason and an end, what keeps images and objects, and what would go: as an operator asks for it.

use serde_json::{Value, json};

use super::{Machine, on_a_terminal, printed, run};
use crate::support::archive::{archive, noise};
use crate::support::images::{Image, Layout};

/// Two images that share a file, one of them with a link and names of its own.
fn images() -> (Layout, Layout) {
    let shared = noise("shared", 40_000);
    let one =
        archive(&[("d/", b""), ("d/shared", &shared), ("alone", &noise("one", 9_000)), ("small", b"small")]);
    let two = archive(&[("elsewhere", &shared), ("alone", &noise("two", 9_000))]);
    (Layout::of(&Image::new(vec![one])), Layout::of(&Image::new(vec![two])))
}

#[test]
fn a_pin_says_why_and_how_long() {
    let machine = Machine::new(&[]);
    let (one, two) = images();
    let (one, two) = (one.reference("latest"), two.reference("latest"));
    for image in [&one, &two] {
        printed(&machine, &["pull", image]);
    }
    printed(&machine, &["pin", &one, "--reason", "for the release", "--for", "30d"]);
    printed(&machine, &["pin", &two]);
    let pins = machine.run(&["pins"]);
    let pin = pins.as_array().unwrap().iter().find(|pin| pin["names"] == json!([one])).unwrap();
    assert_eq!((&pin["reason"], &pin["ended"]), (&json!("for the release"), &json!(false)));
    assert_eq!(pin["until"].as_u64().unwrap() - pin["since"].as_u64().unwrap(), 30 * 86_400);
    let text = printed(&machine, &["pins"]);
    assert!(
        text.contains("for the release") && text.contains("in 30 days") && text.contains("never"),
        "{text}"
    );
    for wrong in ["0", "soon", "-1h"] {
        assert!(!run(&machine, &["pin", &one, &format!("--for={wrong}")]).status.success(), "{wrong}");
    }
    assert!(!run(&machine, &["pin", &one, "--reason", ""]).status.success());
    // A short one ends by itself.
    printed(&machine, &["pin", &two, "--for", "1ms"]);
    let plan = machine.run(&["prune", "--dry-run"]);
    assert_eq!(plan["images"].as_array().unwrap().len(), 1);
    assert_eq!(plan["images"][0]["names"], json!([two]));
    assert_eq!(plan["stays"][0]["kept"][0]["reason"], "for the release");
    assert!(plan["bytes"].as_u64().unwrap() > 9_000 && plan["bytes"].as_u64().unwrap() < 40_000, "{plan}");
    let text = printed(&machine, &["prune", "--dry-run"]);
    assert!(
        text.contains("pinned for 30 days: for the release") && text.contains("1 image would be removed"),
        "{text}"
    );
    assert_eq!(machine.run(&["prune"])["images"][0]["names"], json!([two]));
    printed(&machine, &["unpin", &one]);
    assert_eq!(
        machine.run(&["pins"]).as_array().unwrap().iter().filter(|pin| pin["ended"] == false).count(),
        0
    );
}

#[test]
fn what_keeps_an_image_and_who_has_a_file() {
    let machine = Machine::new(&[]);
    let (one, two) = images();
    let (one, two) = (one.reference("latest"), two.reference("latest"));
    for image in [&one, &two] {
        printed(&machine, &["pull", image]);
    }
    let target = machine.target("pod");
    std::fs::create_dir_all(&target).unwrap();
    printed(&machine, &["mount", &one, target.to_str().unwrap()]);
    let why = |what: &str| machine.run(&["store", "why", what]);
    let image = why(&one);
    assert_eq!(image["images"][0]["kept"], json!([{"by": "mount"}]));
    let key = image["images"][0]["key"].as_str().unwrap().to_owned();
    assert_eq!(why(&key[..19])["images"][0]["image"], json!(one), "by the beginning of its digest");
    // A path, the object that is there, and who else has it.
    let path = why("/d/shared");
    assert_eq!(path["images"].as_array().unwrap().len(), 1);
    let object = path["images"][0]["object"].as_str().unwrap();
    let file = machine.state().join("store/objects").join(&object[..2]).join(&object[2..]);
    for asked in [object, &object[..12], file.to_str().unwrap()] {
        let found = why(asked);
        let mut paths: Vec<&Value> =
            found["images"].as_array().unwrap().iter().map(|i| &i["paths"]).collect();
        paths.sort_by_key(|paths| paths.to_string());
        assert_eq!(paths, [&json!(["/d/shared"]), &json!(["/elsewhere"])], "{asked}");
    }
    assert_eq!(why("/alone")["images"].as_array().unwrap().len(), 2, "of each its own");
    assert_eq!(why("/small")["images"][0]["shows"], "file in the composefs image");
    let text = printed(&machine, &["store", "why", object]);
    assert!(text.contains("at       /elsewhere") && text.contains("it is mounted"), "{text}");
    assert!(text.contains("nothing; last used"), "{text}");
    for absent in ["/nowhere", "0123456789abcdef", "r.io/none:1"] {
        let refused = run(&machine, &["store", "why", absent]);
        assert!(!refused.status.success() && refused.stdout.is_empty(), "{absent}");
    }
    printed(&machine, &["unmount", target.to_str().unwrap()]);
}

#[test]
fn a_picture_of_what_each_image_takes() {
    let machine = Machine::new(&[]);
    let (one, two) = images();
    for image in [one.reference("latest"), two.reference("latest")] {
        printed(&machine, &["pull", &image]);
    }
    let listing = machine.run(&["store", "du"]);
    let images = listing["images"].as_array().unwrap();
    let part = |image: &Value, field: &str| image[field].as_u64().unwrap();
    assert!(images.iter().all(|image| part(image, "shared_bytes") == 40_000));
    assert!(part(&images[0], "total_bytes") >= part(&images[1], "total_bytes"));
    assert_eq!(listing["saved_bytes"], 40_000);
    assert_eq!(machine.run(&["store", "ls"])["objects"], listing["objects"]);
    let shown = on_a_terminal(&machine, &["store", "du"]);
    assert!(shown.iter().any(|line| line.contains('█') && line.contains('░')), "{shown:?}");
    assert!(shown.iter().all(|line| line.chars().count() <= 80 || !line.contains('█')), "{shown:?}");
    assert!(!printed(&machine, &["store", "du"]).contains('█'), "no picture in a file");
}

#[test]
fn the_structure_is_checked() {
    let machine = Machine::new(&[]);
    let (one, _) = images();
    printed(&machine, &["pull", &one.reference("latest")]);
    assert_eq!(machine.run(&["store", "fsck"])["findings"], json!([]));
    let object = machine.run(&["store", "why", "/alone"])["images"][0]["object"].as_str().unwrap().to_owned();
    std::fs::remove_file(machine.state().join("store/objects").join(&object[..2]).join(&object[2..]))
        .unwrap();
    let checked = run(&machine, &["store", "fsck"]);
    let text = String::from_utf8(checked.stdout).unwrap();
    assert!(!checked.status.success() && text.contains(&object) && text.contains("store repair"), "{text}");
    // As it says.
    let repaired = printed(&machine, &["store", "repair"]);
    assert!(repaired.contains("is missing") && repaired.contains("1 image whole again"), "{repaired}");
    assert_eq!(machine.run(&["store", "fsck"])["findings"], json!([]));
}

#[test]
fn all_objects_are_read_again() {
    let machine = Machine::new(&[]);
    let (one, _) = images();
    printed(&machine, &["pull", &one.reference("latest")]);
    let sound = machine.run(&["store", "scrub"]);
    assert_eq!((&sound["objects"], &sound["found"], &sound["began"]), (&json!(3), &json!([]), &Value::Null));
    let object = machine.run(&["store", "why", "/alone"])["images"][0]["object"].as_str().unwrap().to_owned();
    let path = machine.state().join("store/objects").join(&object[..2]).join(&object[2..]);
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, noise("other", 9_000)).unwrap();
    let found = run(&machine, &["store", "scrub", "--rate", "100"]);
    let text = String::from_utf8(found.stdout).unwrap();
    assert!(!found.status.success() && text.contains(&format!("object {object} is damaged")), "{text}");
}
