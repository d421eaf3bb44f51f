//! Comparisons of silent channels with the broker are spread over time.

use engine::Effect;
use engine::broker::{BrokerEvent, BrokerRequest, JoinedStream, PublicationsRequest};

use crate::world::{World, rules, subscribed_to};

/// 20,000 positioned channels are joined at once and stay silent: the times of their comparisons.
#[test]
fn comparisons_are_spread_over_the_delay() {
    const CHANNELS: usize = 20_000;
    const CHANNELS_OF_ONE: usize = 200;
    let mut rules = rules();
    rules.client.channel_limit = CHANNELS_OF_ONE;
    rules.client.ping_interval_ms = 0;
    let mut world = World::with(rules);
    for client in 0..CHANNELS / CHANNELS_OF_ONE {
        let name = |number: usize| format!("kept:{client}-{number}");
        let names: Vec<String> = (0..CHANNELS_OF_ONE).map(name).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let key = world.user(subscribed_to("ann", &names));
        assert!(world.received(key)[0].contains(r#""connect":{"client""#));
    }
    let mut now = world.now();
    let mut turns = Vec::new();
    // In turns as the driver makes them.
    while now.monotonic_ms < 40_000 {
        now.monotonic_ms = world.worker.next_timeout_ms().max(now.monotonic_ms + 1);
        world.worker.handle_timeout(now);
        let mut asked = 0;
        while let Some(effect) = world.worker.poll_effect() {
            if let Effect::Broker(BrokerRequest::Publications(PublicationsRequest::Subscribe {
                id,
                ..
            })) = effect
            {
                asked += 1;
                let top = wire::protocol::StreamPosition { offset: 0, epoch: "epoch0".to_owned() };
                let stream = JoinedStream { top, publications: Vec::new() };
                let reply = BrokerEvent::Reply(id.answer(Ok(stream)));
                world.worker.handle_broker_event(now, reply);
            }
        }
        turns.push((now.monotonic_ms, asked));
    }
    let within = |from, to| -> usize {
        turns.iter().filter(|(at, _)| (from..to).contains(at)).map(|(_, asked)| asked).sum()
    };
    assert_eq!(within(0, 20_000), 0, "nothing is asked before a channel was silent for a while");
    let once = within(20_000, 41_000);
    assert!((CHANNELS..CHANNELS + CHANNELS / 5).contains(&once), "{once}");
    for from in (20_000..40_000).step_by(4_000) {
        let asked = within(from, from + 4_000);
        assert!((2_500..6_500).contains(&asked), "{asked} from {from} ms on");
    }
    assert_eq!(world.worker.subscription_count(), CHANNELS, "nobody has a gap");
}
