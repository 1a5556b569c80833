//! Which tag is asked for when, without a clock.

use super::*;
use crate::node::credential_providers::PodIdentity;
use crate::node::volume::target::TargetPath;
use crate::oci::Credentials;
use crate::volume::access::{Access, AccessMode};
use crate::volume::content::Content;

const EVERY: Duration = Duration::from_secs(100);

fn request(name: &str, image: &str) -> VolumeRequest {
    let context =
        [("image", image), ("follow", "true")].map(|(key, value)| (key.to_owned(), value.to_owned()));
    VolumeRequest {
        volume: name.parse().unwrap(),
        target: TargetPath::recorded(std::path::Path::new("/pods/a/mount")),
        content: Content::parse(&HashMap::from(context)).unwrap().0,
        access: Access { mode: AccessMode::SingleNodeWriter, noexec: false },
        identity: PodIdentity::default(),
        credentials: Credentials::default(),
        wait: Duration::ZERO,
    }
}

fn digest(number: u8) -> Digest {
    Digest::of(&[number])
}

fn two(now: Instant) -> Followed {
    let followed = Followed::new(Some(EVERY));
    followed.remember(request("a", "r.io/a:1"), None, now);
    followed.remember(request("b", "r.io/b:1"), None, now);
    followed
}

#[test]
fn each_is_asked_for_once_in_a_while_and_later_after_a_failure() {
    let begun = Instant::now();
    let followed = two(begun);
    assert!(followed.take_due(begun + EVERY.mul_f64(0.89)).is_none());
    let at = begun + EVERY.mul_f64(1.1);
    let (first, second) = (followed.take_due(at).unwrap(), followed.take_due(at).unwrap());
    assert_ne!(first.request.volume, second.request.volume);
    assert!(followed.take_due(at).is_none() && followed.next_due().is_none(), "both are being asked for");
    followed.answered(&first, Asked::Same(digest(1)), at);
    followed.answered(&second, Asked::Failed("no".to_owned()), at);
    assert_eq!(followed.take_due(at + EVERY.mul_f64(1.1)).unwrap().request.volume, first.request.volume);
    assert!(followed.take_due(at + EVERY.mul_f64(1.79)).is_none());
    assert!(followed.take_due(at + EVERY.mul_f64(2.2)).is_some());
    let counted = [StateLabel::Current, StateLabel::Behind].map(|label| followed.volumes.get(label));
    assert_eq!(counted, [1, 1]);
    assert!(!followed.is_news(&second, "no") && followed.is_news(&second, "never"));
}

#[test]
fn who_is_in_a_hurry_gets_an_answer_to_his_own_question() {
    let now = Instant::now();
    let followed = two(now);
    assert!(followed.hurry("r.io/c:1", now).is_empty() && followed.take_due(now).is_none());
    let rounds = followed.hurry("a", now);
    let job = followed.take_due(now).unwrap();
    assert_eq!(job.request.volume.as_str(), "a");
    // Another comes meanwhile. The question that is under way may have had its answer already.
    let later = followed.hurry("r.io/a:1", now);
    assert!(followed.take_due(now).is_none() && !followed.have_answers(&rounds));
    followed.answered(&job, Asked::Switched(digest(1)), now);
    assert!(followed.have_answers(&rounds) && !followed.have_answers(&later));
    let job = followed.take_due(now).unwrap();
    followed.answered(&job, Asked::Same(digest(1)), now);
    assert!(followed.have_answers(&later) && followed.take_due(now).is_none());
    let list = followed.list("", now + Duration::from_secs(3));
    assert_eq!((list.len(), list[0].volume.as_str(), list[0].seconds), (2, "a", Some(3)));
    assert_eq!(list[0].digest, Some(digest(1).to_string()));
    assert_eq!((&list[1].digest, list[1].asking), (&None, false));
}

#[test]
fn what_is_gone_is_not_asked_for_and_its_answer_is_nobodys() {
    let now = Instant::now();
    let followed = two(now);
    let rounds = followed.hurry("a", now);
    let job = followed.take_due(now).unwrap();
    followed.forget(&job.request.volume);
    assert!(job.gone.is_cancelled() && followed.have_answers(&rounds));
    followed.remember(request("a", "r.io/a:1"), None, now);
    followed.answered(&job, Asked::Switched(digest(1)), now);
    assert_eq!(followed.list("a", now)[0].digest, None, "another volume of this name");
    followed.hurry("", now);
    let job = followed.take_due(now).unwrap();
    followed.answered(&job, Asked::Gone, now);
    assert_eq!(followed.list("", now).len(), 1);
    let off = Followed::new(None);
    off.remember(request("a", "r.io/a:1"), None, now);
    assert!(!off.is_on() && off.list("", now).is_empty());
}

#[test]
fn a_condition_says_what_is_shown_and_what_is_wrong() {
    let now = Instant::now();
    let followed = two(now);
    let volume: VolumeId = "a".parse().unwrap();
    let message = |followed: &Followed| followed.message(&volume, "r.io/a:1", &digest(1));
    assert_eq!(message(&followed), format!("follows r.io/a:1 and shows {} (not asked yet)", digest(1)));
    followed.hurry("a", now);
    let job = followed.take_due(now).unwrap();
    followed.answered(&job, Asked::Same(digest(1)), now);
    followed.hurry("a", now);
    followed.answered(&followed.take_due(now).unwrap(), Asked::Failed("it is refused".to_owned()), now);
    let text = message(&followed);
    assert!(text.ends_with("; not switched: it is refused"), "{text}");
    let restarted = Followed::new(Some(EVERY));
    assert!(message(&restarted).contains("until kubelet publishes the volume again"));
}
