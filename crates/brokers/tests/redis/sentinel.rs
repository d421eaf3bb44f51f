//! Sentinels that name the master: found at the start, and found again when another server has become it.

use std::time::Duration;

use crate::checker::{Checker, Publisher};
use crate::groups::Watched;
use crate::world::{Node, settings};

#[test]
fn a_master_that_is_killed_under_load_is_followed_to_the_next() {
    let mut watched = Watched::start();
    let stranger = Node::start_anyhow(settings(&[watched.address("other")]));
    stranger.wait_unready("sentinel_master_name");
    let mut checker = Checker::start(settings(&[watched.address("main")]), 50);
    let publisher = Publisher::start(settings(&[watched.address("main")]), 50);
    publisher.wait_more(500);
    watched.master.kill();
    watched.wait_taken_over();
    publisher.wait_more(500);
    publisher.stop();
    checker.listen(Duration::from_millis(500));
    assert!(checker.gaps >= 50, "all channels have new epochs");
    checker.assert_complete();
}
