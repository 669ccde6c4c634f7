//! The conformance suite on the simulated engine, each case under paused time.

use skep_tests::conformance::cases;
use skep_tests::sim::{Sim, SimOptions};

#[tokio::test(start_paused = true)]
async fn the_simulated_engine_behaves_as_a_real_one() {
    let cases = cases();
    let mut failed = Vec::new();
    for case in &cases {
        let sim = Sim::new(SimOptions::default());
        let run = std::panic::AssertUnwindSafe(case.run_simulated(&sim));
        if futures::FutureExt::catch_unwind(run).await.is_err() {
            failed.push(case.name);
        }
    }
    println!(
        "conformance: {} of {} cases hold on the simulated engine",
        cases.len() - failed.len(),
        cases.len()
    );
    assert_eq!(failed, Vec::<&str>::new());
}
