//! Properties of [`super`] that hold for any labels.

use proptest::prelude::*;

use super::*;

/// Keys near the valid ones, and texts near the valid values.
fn any_labels() -> impl Strategy<Value = Labels> {
    let known = (0..KEYS.len(), "[a-z-]{1,3}").prop_map(|(row, name)| KEYS[row].with_name(&name));
    let key = prop_oneof![4 => known, 1 => "skep[._-][a-z.-]{0,12}", 1 => "\\PC{0,12}"];
    let example = (0..KEYS.len()).prop_map(|row| KEYS[row].example.to_owned());
    let text = prop_oneof![3 => example, 1 => "\\PC{0,16}", 1 => "[0-9a-z*/@,; -]{0,16}"];
    prop::collection::btree_map(key, text, 0..12)
}

/// Whether a label has left its mark: in the policy (without it, the policy is another), or in a problem.
fn is_told(all: &Labels, key: &str) -> bool {
    let with = parse(all);
    let mut less = all.clone();
    less.remove(key);
    let without = parse(&less);
    with != without || keys::find(key).is_some_and(|(spec, _)| spec.default.is_some())
}

proptest! {
    #[test]
    fn no_label_panics_and_none_is_lost(all in any_labels()) {
        let parsed = parse(&all);
        for problem in &parsed.problems {
            prop_assert!(!problem.want.is_empty());
            prop_assert!(!problem.of("shop_db").to_string().is_empty());
            prop_assert!(serde_json::to_string(problem).is_ok());
        }
        for (key, text) in all.iter().filter(|(key, _)| is_ours(key)) {
            let alone = match keys::find(key) {
                Some((spec, name)) if value::short_name(name).is_ok() || name.is_empty() => match spec.take {
                    Take::Into(into) => into(&mut Draft::default(), name, text.trim()).is_err(),
                    Take::Later => true,
                },
                _ => true,
            };
            let told = parsed.problems.iter().any(|p| p.key == *key);
            prop_assert!(!alone || told, "{} = {:?} is faulty, and nobody is told: {:?}", key, text, parsed.problems);
        }
    }

    #[test]
    fn a_label_that_is_understood_and_no_default_changes_something(all in any_labels()) {
        for key in all.keys().filter(|key| is_ours(key)) {
            // A page or a waker that is off, a section that is off, or a service that is not enabled (where something says so)
            // hides its settings on purpose.
            let parsed = parse(&all);
            let hidden = keys::find(key).is_none_or(|(spec, _)| parsed.is_off(spec.section)
                || (spec.section == Section::Maintenance && parsed.policy.maintenance.is_none())
                || (key.starts_with("skep.scale.wake.") && all.get("skep.scale.wake").is_some_and(|wake| wake == "false"))
                || (spec.section == Section::Update && !parsed.policy.enabled)
                || parsed.is_off(Section::Data));
            prop_assert!(hidden || is_told(&all, key), "{} has no effect and no problem", key);
        }
    }

    #[test]
    fn a_section_is_there_exactly_when_nothing_is_wrong_with_it(all in any_labels()) {
        let parsed = parse(&all);
        let works = |section| !parsed.is_off(section);
        prop_assert_eq!(parsed.policy.data.is_some(), all.contains_key("skep.data") && works(Section::Data));
        let has_data = parsed.policy.data.is_some();
        prop_assert_eq!(parsed.policy.backup.is_some(), has_data && works(Section::Backup));
        prop_assert_eq!(parsed.policy.restore.is_some(), has_data && works(Section::Restore));
    }
}
