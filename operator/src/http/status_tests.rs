use super::*;
use crate::http::fixture::{at, view};
use crate::http::view::OperationView;
use crate::operation::record::{State as OpState, StepState, Trigger, Work};

fn overview(view: &View) -> String {
    Pages::new().overview(view, true, at(25)).0
}

#[test]
fn the_overview_shows_what_there_is() {
    let page = overview(&view());
    for part in [
        "Restore of shop_db",
        "Restore beside, and check it there",
        "alert ShopTableMissing",
        "value=\"68\"",
        "waits for approval",
        "circuit open",
        "in maintenance",
        "asleep",
        "L012",
        "did you mean <code>cache</code>?",
        "No restore until this is mended.",
        "65 min ago",
        "432 MB",
        "from before 21 Nov 2026 08:18:45 UTC",
        "rolled back",
    ] {
        assert!(page.contains(part), "{part} is missing");
    }
}

#[test]
fn every_operation_has_a_page_and_others_have_none() {
    let view = view();
    for op in &view.operations {
        let page = Pages::new().operation(&view, op.id.as_str(), true, at(25)).unwrap().0;
        assert!(page.contains(op.id.as_str()) && page.contains("class=\"steps\""));
    }
    assert!(Pages::new().operation(&view, "20200101t000000abcdef", true, at(25)).is_none());
}

#[test]
fn pages_without_anything_in_them_are_whole_too() {
    let mut empty = view();
    empty.services.clear();
    empty.operations.clear();
    empty.leads = false;
    empty.trouble = Some("the engine cannot be reached: connection refused".to_owned());
    let page = overview(&empty);
    for part in ["skep.enable=true", "Nothing has ended yet", "stands by", "connection refused", "</html>"] {
        assert!(page.contains(part), "{part} is missing");
    }
    assert!(Pages::new().message("gone", "/").0.contains("gone"));
}

#[test]
fn what_comes_from_outside_is_escaped_wherever_it_is_shown() {
    const EVIL: &str = "<script>alert(1)</script>\" onload=\"x' &amp;";
    let mut view = view();
    view.cluster = EVIL.to_owned();
    view.leader = Some(EVIL.to_owned());
    view.trouble = Some(EVIL.to_owned());
    for service in &mut view.services {
        service.name = format!("{}{EVIL}", service.name);
        if let Some(guard) = &mut service.guard {
            guard.alerts = vec![EVIL.to_owned()];
            guard.circuit = Some((at(0), EVIL.to_owned()));
            guard.unreadable = Some(EVIL.to_owned());
            guard.incidents.iter_mut().for_each(|i| i.alert = EVIL.to_owned());
        }
        for problem in &mut service.problems {
            problem.key = EVIL.to_owned();
            problem.text = EVIL.to_owned();
            problem.hint = Some(EVIL.to_owned());
        }
    }
    for op in &mut view.operations {
        op.service = EVIL.to_owned();
        op.asked_by = EVIL.to_owned();
        op.what = EVIL.to_owned();
        op.approved_by = Some(EVIL.to_owned());
        op.remarks = vec![EVIL.to_owned()];
        for step in &mut op.steps {
            step.title = EVIL.to_owned();
            step.note = EVIL.to_owned();
        }
    }
    let mut pages = vec![overview(&view), Pages::new().message(EVIL, "/").0];
    let id = view.operations[0].id.to_string();
    pages.push(Pages::new().operation(&view, &id, true, at(25)).unwrap().0);
    for page in pages {
        assert!(page.contains("&lt;script&gt;"));
        assert!(!page.contains("<script>") && !page.contains("\" onload"), "{page}");
    }
}

#[test]
fn credentials_in_notes_are_masked_before_they_reach_a_page() {
    let page = overview(&view());
    assert!(!page.contains("hunter2") && page.contains("•••"));
    assert!(!serde_json::to_string(&view()).unwrap().contains("hunter2"));
}

#[test]
fn what_a_step_chose_is_never_shown() {
    use crate::http::fixture::{intent, operation};
    let trigger = Trigger::Person { name: "p".to_owned() };
    let mut op = operation(
        intent(Work::Backup, "s", trigger, at(0)),
        OpState::Running,
        &[("claim", StepState::Done, 0, 1, "")],
    );
    op.journal.steps[0].1.out = serde_json::json!({ "spec": { "Env": ["KEY=outcome-of-the-step"] } });
    let shown = OperationView::of(&op, &[], None);
    assert!(!serde_json::to_string(&shown).unwrap().contains("outcome-of-the-step"));
}

#[test]
fn pages_load_nothing_from_elsewhere_and_carry_no_inline_script_or_style() {
    let page = overview(&view());
    for foreign in ["http://", "https://", " style=", "<style", "onclick", "javascript:", "//cdn"] {
        assert!(!page.contains(foreign), "{foreign}");
    }
    assert!(!STYLE.contains("url(") && !STYLE.contains("@import") && !SCRIPT.contains("http"));
}

#[test]
fn forms_are_there_only_where_a_token_could_open_them() {
    let shut = Pages::new().overview(&view(), false, at(25)).0;
    assert!(!shut.contains("<form") && shut.contains("skep ops approve"));
    let open = overview(&view()).replace("&#x2f;", "/");
    assert!(open.contains("/approve\"") && open.contains("/services/blog_db/reset-circuit\""));
}

#[test]
fn a_page_with_a_form_does_not_reload_itself_without_javascript() {
    assert!(!overview(&view()).contains("http-equiv"), "somebody may be typing");
    let mut calm = view();
    calm.operations.retain(|o| o.state != OpState::AwaitingApproval);
    calm.services.iter_mut().for_each(|s| s.guard = None);
    assert!(overview(&calm).contains("http-equiv"));
}

#[test]
fn times_of_steps_add_up_to_a_waterfall() {
    let view = view();
    let restore = view.operations.iter().find(|o| o.service == "shop_db" && o.kind == "restore").unwrap();
    let page = Pages::new().operation(&view, restore.id.as_str(), true, at(25)).unwrap().0;
    assert!(
        page.contains("<rect x=\"120\" y=\"1\" width=\"280\""),
        "the safety backup: 7 s of 25, from second 3 on"
    );
    assert!(page.contains("<b>25 s</b>"));
}

/// Writes pages to the directory `SKEP_PAGES`, to be looked at: `SKEP_PAGES=/tmp/pages cargo test -p skep pages_to_look_at`.
#[test]
fn pages_to_look_at_have_no_broken_tags() {
    let view = view();
    let pages = Pages::new();
    let mut shown = vec![("overview.html".to_owned(), overview(&view))];
    for op in &view.operations {
        let page = pages.operation(&view, op.id.as_str(), true, at(25)).unwrap().0;
        shown.push((format!("{}-{}.html", op.kind, op.state.as_str()), page));
    }
    for (name, page) in shown {
        for tag in
            ["article", "section", "details", "ol", "ul", "li", "div", "span", "p", "form", "svg", "header"]
        {
            let count = |needle: &str| page.matches(needle).count();
            let opened = count(&format!("<{tag}>")) + count(&format!("<{tag} "));
            assert_eq!(opened, count(&format!("</{tag}>")), "{name}: <{tag}>");
        }
        if let Ok(dir) = std::env::var("SKEP_PAGES") {
            std::fs::write(std::path::Path::new(&dir).join(name), page).unwrap();
        }
    }
}
