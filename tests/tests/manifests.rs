//! The stack files that we ship say what they mean.

use skep::policy::check_files;
use skep_tests::sandbox::repository;

/// What `skep check` says about the demo shop with these variables.
fn checked(variables: &[(&str, &str)]) -> String {
    let path = repository("manifests/shop.yml");
    let environment =
        |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
    let report = check_files(&[&path], &environment, Some("shop"));
    assert_eq!((report.problems(), report.warnings()), (0, 0), "{report}");
    report.to_string()
}

#[test]
fn the_demo_shop_has_no_label_problem_however_it_is_told_to_work() {
    assert!(checked(&[]).contains("shop"), "the check has read nothing");
    checked(&[("SHOP_MAINTENANCE_MODE", "proxy")]);
    checked(&[("SHOP_RESTORE_MODE", "approve"), ("SHOP_RESTORE_STRATEGY", "in-place")]);
    checked(&[("SHOP_RESTORE_QUIESCE", "false")]);
}
