//! Cases of revocations: the broker stores them and sends them to all endpoints, the later change of a
//! subject holds, and all of them expire.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use engine::broker::{BrokerEvent, BrokerReply, BrokerRequest};
use engine::revocation::{Revocation, State, Subject};

use super::{Actor, World};
use crate::Party;

/// Unix seconds.
fn now_s() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later than 1970");
    i64::try_from(since.as_secs()).expect("in this age")
}

fn revoked(subject: Subject, changed_at_ms: i64) -> Revocation {
    let state = State::Revoked { issued_before: 7 };
    Revocation { subject, state, ends_at: now_s() + 600, changed_at_ms }
}

impl Actor<'_> {
    fn revoke(&mut self, party: Party, revocation: Revocation) -> Arc<Revocation> {
        let revocation = Arc::new(revocation);
        let change = revocation.clone();
        let answer = self.ask(party, |id| BrokerRequest::Revoke { id, revocation: change });
        assert_eq!(answer, Ok(BrokerReply::RevocationKept));
        revocation
    }

    /// What the broker stores of these subjects; other cases on the same broker have others.
    fn kept(&mut self, party: Party, subjects: &[Subject]) -> Vec<Arc<Revocation>> {
        match self.ask(party, |id| BrokerRequest::ReadRevocations { id }) {
            Ok(BrokerReply::Revocations(mut kept)) => {
                kept.retain(|one| subjects.contains(&one.subject));
                kept.sort_by(|one, other| one.subject.cmp(&other.subject));
                kept.dedup();
                kept
            }
            other => panic!("reading revocations answered {other:?}"),
        }
    }

    /// Waits until the endpoint receives this change.
    fn is_told(&mut self, party: Party, revocation: &Arc<Revocation>) {
        loop {
            match self.world.next_due(party) {
                BrokerEvent::Revocation(told) if told == *revocation => return,
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
        actor.is_told(two, &change);
        changes.push(change);
    }
    assert_eq!(actor.kept(two, &subjects), changes);
    let lifted = Revocation { state: State::Lifted, ..revoked(subjects[0].clone(), 2) };
    let lifted = actor.revoke(two, lifted);
    actor.is_told(one, &lifted);
    changes[0] = lifted;
    assert_eq!(actor.kept(one, &subjects), changes);
}

pub(super) fn over(world: &mut dyn World) {
    let name = world.fresh_channel();
    let one = world.attach();
    let mut actor = Actor { world, next_id: 0 };
    let subjects = [Subject::User(name.clone()), Subject::Token(name)];
    let later = actor.revoke(one, revoked(subjects[0].clone(), 5));
    let earlier = Revocation { state: State::Lifted, ..revoked(subjects[0].clone(), 4) };
    actor.revoke(one, earlier);
    let over = Revocation { ends_at: now_s() - 1, ..revoked(subjects[1].clone(), 1) };
    actor.revoke(one, over);
    assert_eq!(actor.kept(one, &subjects), [later]);
}
