//! The comparison of rules of scaling, and what must come of it.

use waypost_simulator::scaling::{MAX_IDLETIME, Rule, loads, page, play, plot};

#[test]
fn our_rules_end_no_pod_that_is_asked_for_again_within_its_idle_time() {
    for load in loads() {
        assert_eq!(play(&load, Rule::Waypost).flaps(MAX_IDLETIME), 0, "{}", load.name);
        let hasty = play(&load, Rule::WaypostHasty).flaps(MAX_IDLETIME);
        assert_eq!(
            hasty > 0,
            load.name != "straggler",
            "a quarter of it is noticed: {}",
            load.name
        );
    }
}

#[test]
fn our_rules_use_no_more_pods_than_any_before_them() {
    for load in loads() {
        let ours = play(&load, Rule::Waypost).pod_time;
        for rule in [Rule::Simple, Rule::HtexAutoScale, Rule::KubeSimple] {
            assert!(ours < play(&load, rule).pod_time, "{rule:?} under {}", load.name);
        }
    }
}

#[test]
fn one_long_task_keeps_no_more_pods_than_it_needs() {
    let loads = loads();
    let straggler = loads.iter().find(|load| load.name == "straggler");
    let straggler = straggler.expect("there is such a load");
    let used = |rule| play(straggler, rule).pod_time;
    assert!(used(Rule::Waypost) * 4 < used(Rule::Simple));
    assert!(used(Rule::Waypost) * 4 < used(Rule::KubeSimple));
}

#[test]
fn every_pod_that_is_started_is_ended() {
    for load in loads() {
        for rule in Rule::ALL {
            let record = play(&load, rule);
            assert_eq!(record.starts.len(), record.stops.len(), "{rule:?} under {}", load.name);
        }
    }
}

#[test]
fn the_page_and_the_plot_are_what_the_command_writes() {
    let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs");
    for (name, text) in [("scaling.md", page()), ("scaling.svg", plot())] {
        let kept = std::fs::read_to_string(format!("{docs}/{name}")).unwrap_or_default();
        assert!(
            kept == text,
            "docs/{name} is not up to date: run `cargo run --release -p waypost-simulator --bin compare-scaling`"
        );
    }
}
