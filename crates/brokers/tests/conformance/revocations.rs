//! Cases of revocations: the broker stores them and sends them to all endpoints, the later change
//! of a subject holds, and all of them expire.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use engine::broker::{BrokerEvent, RegistryRequest};
use engine::limits::ID_BYTES_MAX;
use engine::revocation::{Revocation, RevocationState, RevokeOutcome, Subject};

use super::{Actor, World};
use brokers::Endpoint;

/// Unix time in seconds.
fn now_s() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later than 1970");
    i64::try_from(since.as_secs()).expect("in this age")
}

fn revoked(subject: Subject, changed_at_ms: i64) -> Revocation {
    let state = RevocationState::Revoked { issued_before: 7 };
    Revocation { subject, state, ends_at: now_s() + 600, changed_at_ms }
}

impl Actor<'_> {
    fn revoke(&mut self, endpoint: Endpoint, revocation: Revocation) -> Arc<Revocation> {
        let revocation = Arc::new(revocation);
        assert_eq!(self.submit_change(endpoint, &revocation), RevokeOutcome::Stored);
        revocation
    }

    fn submit_change(&mut self, endpoint: Endpoint, revocation: &Arc<Revocation>) -> RevokeOutcome {
        let revocation = revocation.clone();
        self.ask(endpoint, |id| RegistryRequest::Revoke { id, revocation }).expect("a reply")
    }

    fn find(&mut self, endpoint: Endpoint, subject: &Subject) -> Option<Arc<Revocation>> {
        let subject = subject.clone();
        self.ask(endpoint, |id| RegistryRequest::Find { id, subject }).expect("a reply")
    }

    /// Returns the stored changes of these subjects; other cases on the same broker use others.
    fn kept(&mut self, endpoint: Endpoint, subjects: &[Subject]) -> Vec<Arc<Revocation>> {
        match self.ask(endpoint, |id| RegistryRequest::Read { id }) {
            Ok(mut kept) => {
                kept.retain(|one| subjects.contains(&one.subject));
                kept.sort_by(|one, other| one.subject.cmp(&other.subject));
                kept.dedup();
                kept
            }
            other => panic!("reading revocations answered {other:?}"),
        }
    }

    /// Waits until the endpoint receives this change.
    fn wait_for_change(&mut self, endpoint: Endpoint, revocation: &Arc<Revocation>) {
        loop {
            match self.world.next_due(endpoint) {
                BrokerEvent::Revocation(received) if received == *revocation => return,
                _ => {}
            }
        }
    }
}

pub(super) fn kept(world: &mut dyn World) {
    let name = world.fresh_channel();
    let (one, two) = (world.attach(), world.attach());
    let mut actor = Actor { world, next_id: 0 };
    let subjects = [
        Subject::User(name.clone()),
        Subject::Token(name.clone()),
        Subject::IssuedTo(name),
        Subject::IssuedToAll,
    ];
    let mut changes = Vec::new();
    for subject in &subjects {
        let change = actor.revoke(one, revoked(subject.clone(), 1));
        actor.wait_for_change(two, &change);
        changes.push(change);
    }
    assert_eq!(actor.kept(two, &subjects), changes);
    let lifted = Revocation { state: RevocationState::Lifted, ..revoked(subjects[0].clone(), 2) };
    let lifted = actor.revoke(two, lifted);
    actor.wait_for_change(one, &lifted);
    changes[0] = lifted;
    assert_eq!(actor.kept(one, &subjects), changes);
}

pub(super) fn over(world: &mut dyn World) {
    let name = world.fresh_channel();
    let one = world.attach();
    let mut actor = Actor { world, next_id: 0 };
    let subjects = [Subject::User(name.clone()), Subject::Token(name)];
    let later = actor.revoke(one, revoked(subjects[0].clone(), 5));
    for changed_at_ms in [4, 5] {
        let state = RevocationState::Lifted;
        let change = Revocation { state, ..revoked(subjects[0].clone(), changed_at_ms) };
        let outcome = actor.submit_change(one, &Arc::new(change));
        assert_eq!(outcome, RevokeOutcome::Superseded(later.clone()), "changed at {changed_at_ms}");
    }
    // A repeated change, as after a lost reply, is stored again.
    assert_eq!(actor.submit_change(one, &later), RevokeOutcome::Stored);
    let expired = Revocation { ends_at: now_s() - 1, ..revoked(subjects[1].clone(), 1) };
    assert_eq!(actor.submit_change(one, &Arc::new(expired)), RevokeOutcome::Expired);
    assert_eq!(actor.kept(one, &subjects), [later]);
}

pub(super) fn found(world: &mut dyn World) {
    // The longest id, in characters that take most room in names of brokers.
    let name: Arc<str> = format!("{:\u{7}<1$}", world.fresh_channel(), ID_BYTES_MAX).into();
    let (one, two) = (world.attach(), world.attach());
    let mut actor = Actor { world, next_id: 0 };
    let (user, token) = (Subject::User(name.clone()), Subject::Token(name));
    assert_eq!(actor.find(one, &user), None);
    // Unix milliseconds of the year 2100: the clock of a node may be far ahead.
    let change = actor.revoke(one, revoked(user.clone(), 4_102_444_800_000));
    assert_eq!(actor.find(two, &user), Some(change.clone()));
    assert_eq!(actor.find(two, &token), None);
    let lifted =
        Revocation { state: RevocationState::Lifted, ..revoked(user.clone(), 4_102_444_800_001) };
    let lifted = actor.revoke(two, lifted);
    assert_eq!(actor.find(one, &user), Some(lifted));
    assert_eq!(actor.kept(one, &[token]), []);
}
