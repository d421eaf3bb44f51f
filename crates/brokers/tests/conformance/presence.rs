//! Cases of presence, and of join and leave messages.

use engine::broker::{
    BrokerEvent, JoinRead, Membership, PresenceRequest, PublicationsRequest, PublishOptions,
};
use wire::protocol::PresenceStats;

use super::{World, begin, client, payload};

pub(super) fn presence(world: &mut dyn World) {
    let (mut actor, one, two, channel) = begin(world);
    let add = |info| PresenceRequest::Add { channel: channel.clone(), info, announces: true };
    actor.submit(one, add(client("ann", "1")));
    actor.submit(one, add(client("ann", "2")));
    actor.submit(one, add(client("bob", "3")));
    let client_3 = client("bob", "3");
    assert_eq!(actor.stats(one, &channel), PresenceStats { num_clients: 3, num_users: 2 });
    let named = channel.clone();
    actor.submit(one, PresenceRequest::Remove { channel: named, client: client_3 });
    let named = channel.clone();
    let answer = actor.ask(one, |id| PresenceRequest::Clients { id, channel: named });
    let Ok(clients) = answer else { panic!("presence: {answer:?}") };
    let mut names: Vec<&str> = clients.iter().map(|info| &*info.client).collect();
    names.sort_unstable();
    assert_eq!(names, ["1", "2"]);
    assert_eq!(actor.stats(two, &channel), PresenceStats { num_clients: 2, num_users: 1 });
}

pub(super) fn detach(world: &mut dyn World) {
    let (mut actor, one, two, channel) = begin(world);
    actor.subscribe(two, &channel, JoinRead::Nothing);
    let info = client("ann", "1");
    actor.submit(one, PresenceRequest::Add { channel: channel.clone(), info, announces: true });
    assert_eq!(actor.stats(one, &channel).num_clients, 1);
    actor.world.detach(one);
    assert_eq!(actor.stats(two, &channel), PresenceStats::default());
}

pub(super) fn membership(world: &mut dyn World) {
    let (mut actor, one, two, channel) = begin(world);
    actor.subscribe(two, &channel, JoinRead::Nothing);
    for change in [Membership::Join, Membership::Leave] {
        let (channel, info) = (channel.clone(), client("ann", "1"));
        actor.submit(one, PublicationsRequest::Announce { channel, info, change });
    }
    actor.publish(one, &channel, "end", PublishOptions::default()).unwrap();
    let changes: Vec<Membership> = actor
        .events_to(two, |event| payload(event).is_some())
        .into_iter()
        .filter_map(|event| match event {
            BrokerEvent::Membership { change, info, .. } if info.user == "ann" => Some(change),
            _ => None,
        })
        .collect();
    assert_eq!(changes, [Membership::Join, Membership::Leave]);
}
