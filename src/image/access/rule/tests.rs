use super::Verification::*;
use super::*;

const MINUTE: Duration = Duration::from_secs(60);

fn origin() -> Origin {
    Origin::of(&"r.io/team/app:1".parse().unwrap())
}

fn rule(verification: Verification) -> Rule {
    Rule { verification, allow: vec!["r.io/team/*".parse().unwrap()], ttl: 10 * MINUTE }
}

/// The whole table: policy × record.
#[test]
fn images() {
    let unknown = ImageFacts::default();
    let elsewhere = ImageFacts { from_here: true, ..unknown };
    let preloaded = ImageFacts { preloaded: true, from_here: true, ..unknown };
    let public = ImageFacts { anonymous: true, from_here: true, ..unknown };
    let fresh = ImageFacts { checked: Some(9 * MINUTE), from_here: true, ..unknown };
    let stale = ImageFacts { checked: Some(10 * MINUTE), from_here: true, ..unknown };
    use Given::*;
    #[rustfmt::skip]
    let table = [
        // facts       NeverVerify    Preloaded       Allowlisted     Always
        (unknown,     [Some(Exempt),  None,           None,           None]),
        (elsewhere,   [Some(Exempt),  None,           Some(Exempt),   None]),
        (preloaded,   [Some(Exempt),  Some(Exempt),   Some(Exempt),   None]),
        (public,      [Some(Exempt),  Some(Public),   Some(Exempt),   Some(Public)]),
        (fresh,       [Some(Exempt),  Some(Checked),  Some(Exempt),   Some(Checked)]),
        (stale,       [Some(Exempt),  None,           Some(Exempt),   None]),
    ];
    let policies = [NeverVerify, NeverVerifyPreloadedImages, NeverVerifyAllowlistedImages, AlwaysVerify];
    for (facts, expected) in table {
        for (policy, expected) in policies.into_iter().zip(expected) {
            assert_eq!(rule(policy).image(&origin(), &facts), expected, "{policy:?} {facts:?}");
        }
    }
}

#[test]
fn the_allowlist_is_about_names() {
    let facts = ImageFacts { from_here: true, ..ImageFacts::default() };
    let other = Origin::of(&"r.io/teams/app:1".parse().unwrap());
    assert_eq!(rule(NeverVerifyAllowlistedImages).image(&other, &facts), None);
    assert_eq!(
        rule(NeverVerifyPreloadedImages).image(&origin(), &facts),
        None,
        "the list is another policy's"
    );
}

#[test]
fn no_ttl_asks_every_time() {
    let strict = Rule { ttl: Duration::ZERO, ..rule(AlwaysVerify) };
    let facts = ImageFacts { checked: Some(Duration::ZERO), from_here: true, ..ImageFacts::default() };
    assert_eq!(strict.image(&origin(), &facts), None);
}

#[test]
fn layers() {
    let unknown = LayerFacts::default();
    let preloaded = LayerFacts { preloaded: true, ..unknown };
    let anonymous = LayerFacts { anonymous: true, ..unknown };
    let own = LayerFacts { own: true, ..unknown };
    let policies = [NeverVerify, NeverVerifyPreloadedImages, NeverVerifyAllowlistedImages, AlwaysVerify];
    for (facts, expected) in [
        (unknown, [true, false, false, false]),
        (preloaded, [true, true, false, false]),
        (anonymous, [true; 4]),
        (own, [true; 4]),
    ] {
        for (policy, expected) in policies.into_iter().zip(expected) {
            assert_eq!(rule(policy).layer(&facts), expected, "{policy:?} {facts:?}");
        }
    }
}
