//! A slice of the exactness matrix: every profile of parameters, every method. `cargo xtask exactness` runs all of it.

use serde_json::json;
use specula_tests::exactness;

#[test]
fn every_method_is_exact_under_every_parameter() {
    // Of nine pages at three temperatures each meets another of the eighteen profiles.
    let counts = exactness(&["--pages", "9", "--max-tokens", "16"]);
    let of = |dimension: &str| counts[dimension].as_object().expect("counts by name").len();
    assert_eq!((of("methods"), of("profiles"), of("temperatures")), (12, 18, 3), "{counts}");
    assert_eq!(counts["total"]["differences"], 0);
    assert!(counts["total"]["tokens"].as_u64().is_some_and(|tokens| tokens > 3000), "{counts}");
    for end in ["EndToken", "StopString", "MaxTokens", "ContextEnd", "Plugin"] {
        assert!(counts["ends"][end].as_u64().is_some_and(|texts| texts > 0), "no text ended by {end}: {counts}");
    }
    assert!(counts["cancelled_neighbours"].as_u64() > Some(0) && counts["company"]["8"].as_u64() > Some(0));
    assert_eq!(counts["prompts"][0], json!(1), "a prompt of one token");
}
