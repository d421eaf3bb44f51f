//! The breaker in invented time: transitions one by one, and properties of random histories.

use proptest::collection::vec;
use proptest::prelude::{Strategy, any, prop_oneof, proptest};

use super::*;

const SETTINGS: BreakerSettings = BreakerSettings {
    error_percent: 50,
    slow_call_ms: 1_000,
    slow_percent: 80,
    window_ms: 10_000,
    calls_min: 4,
    open_ms: 5_000,
    probes: 2,
};
const GOOD: CallEnd = CallEnd::Answered { took_ms: 10 };
const SLOW: CallEnd = CallEnd::Answered { took_ms: 1_000 };
const BAD: CallEnd = CallEnd::Failed { took_ms: 10 };

fn calls(breaker: &mut Breaker, now_ms: u64, ends: &[CallEnd]) {
    for end in ends {
        let pass = breaker.admit(now_ms).expect("a pass");
        breaker.finish(now_ms, pass, *end);
    }
}

#[test]
fn failures_open_it_and_probes_close_it() {
    let mut breaker = Breaker::new(SETTINGS);
    calls(&mut breaker, 0, &[GOOD, GOOD, BAD]);
    assert_eq!(breaker.state(), BreakerState::Closed);
    calls(&mut breaker, 1, &[BAD]);
    assert_eq!(breaker.state(), BreakerState::Open);
    assert_eq!(breaker.admit(5_000), None);
    let (first, second) = (breaker.admit(5_001).unwrap(), breaker.admit(5_001).unwrap());
    assert_eq!((breaker.state(), breaker.admit(5_001)), (BreakerState::HalfOpen, None));
    breaker.finish(5_010, first, GOOD);
    assert_eq!(breaker.admit(5_010), None);
    breaker.finish(5_011, second, GOOD);
    assert_eq!(breaker.state(), BreakerState::Closed);
}

#[test]
fn a_failed_probe_opens_it_again() {
    let mut breaker = Breaker::new(SETTINGS);
    calls(&mut breaker, 0, &[BAD; 4]);
    calls(&mut breaker, 5_000, &[BAD]);
    assert_eq!((breaker.state(), breaker.admit(9_999)), (BreakerState::Open, None));
    // A probe without a result leaves its place to another.
    calls(&mut breaker, 10_000, &[CallEnd::Unknown, CallEnd::Unknown, GOOD, SLOW]);
    assert_eq!(breaker.state(), BreakerState::Open);
}

#[test]
fn slow_calls_open_it() {
    let mut breaker = Breaker::new(SETTINGS);
    calls(&mut breaker, 0, &[SLOW, SLOW, SLOW, GOOD]);
    assert_eq!(breaker.state(), BreakerState::Closed);
    calls(&mut breaker, 0, &[SLOW]);
    assert_eq!(breaker.state(), BreakerState::Open);
    let mut breaker = Breaker::new(BreakerSettings { slow_percent: 101, ..SETTINGS });
    calls(&mut breaker, 0, &[SLOW; 20]);
    assert_eq!(breaker.state(), BreakerState::Closed);
}

#[test]
fn old_calls_do_not_count() {
    let mut breaker = Breaker::new(SETTINGS);
    calls(&mut breaker, 0, &[BAD, BAD, BAD]);
    calls(&mut breaker, 10_000, &[BAD, BAD, BAD]);
    assert_eq!(breaker.state(), BreakerState::Closed);
    // Neither do calls from before a change of state.
    let late = breaker.admit(10_000).unwrap();
    calls(&mut breaker, 10_000, &[BAD]);
    assert_eq!(breaker.state(), BreakerState::Open);
    breaker.finish(10_001, late, GOOD);
    assert_eq!((breaker.state(), breaker.admit(10_001)), (BreakerState::Open, None));
}

/// What happens to a breaker.
#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    Begin,
    End(usize, CallEnd),
}

fn step() -> impl Strategy<Value = Step> {
    let ends = prop_oneof![
        proptest::strategy::Just(GOOD),
        proptest::strategy::Just(SLOW),
        proptest::strategy::Just(BAD),
        proptest::strategy::Just(CallEnd::Unknown),
    ];
    prop_oneof![
        (0..4_000_u64).prop_map(Step::Wait),
        proptest::strategy::Just(Step::Begin),
        (any::<usize>(), ends).prop_map(|(which, end)| Step::End(which, end)),
    ]
}

proptest! {
    #[test]
    fn open_means_open_and_half_open_means_few(steps in vec(step(), 0..300)) {
        let mut breaker = Breaker::new(SETTINGS);
        let mut now_ms = 0;
        let mut opened_ms = None;
        let mut running: Vec<BreakerPass> = Vec::new();
        for step in steps {
            match step {
                Step::Wait(ms) => now_ms += ms,
                Step::Begin => {
                    let refuses = breaker.refuses(now_ms);
                    let pass = breaker.admit(now_ms);
                    assert_eq!(refuses, pass.is_none());
                    if let Some(opened_ms) = opened_ms {
                        assert!(pass.is_none() || now_ms >= opened_ms + SETTINGS.open_ms);
                    }
                    assert!(breaker.state() != BreakerState::Closed || pass.is_some());
                    running.extend(pass);
                }
                Step::End(_, _) if running.is_empty() => {}
                Step::End(which, end) => {
                    let pass = running.swap_remove(which % running.len());
                    breaker.finish(now_ms, pass, end);
                }
            }
            let probing = running.iter().filter(|pass| pass.generation == breaker.generation);
            if breaker.state() == BreakerState::HalfOpen {
                assert!(probing.count() <= SETTINGS.probes as usize);
            }
            opened_ms = match (breaker.state(), opened_ms) {
                (BreakerState::Open, None) => Some(now_ms),
                (BreakerState::Open, known) => known,
                _ => None,
            };
        }
        // It recovers as soon as the backend does.
        for pass in running {
            breaker.finish(now_ms, pass, CallEnd::Unknown);
        }
        now_ms += SETTINGS.open_ms + SETTINGS.window_ms;
        for _ in 0..SETTINGS.probes {
            let pass = breaker.admit(now_ms).expect("a pass after the time of being open");
            breaker.finish(now_ms, pass, GOOD);
        }
        assert_eq!(breaker.state(), BreakerState::Closed);
    }
}
