//! Each method does over gRPC what it does over HTTP.

use std::collections::HashMap;

use tonic::codec::CompressionEncoding::Gzip;

use super::client::compatible as pb;
use super::client::own;
use super::client::own::tidings_service_client::TidingsServiceClient;
use super::{channel, client, publication, started, with_key};

#[test]
fn publications_are_delivered_retained_and_removed() {
    let fixture = started(&[]);
    let mut peer = fixture.admitted();
    peer.say(r#"{"id":2,"subscribe":{"channel":"kept:x"}}"#);
    peer.receive();
    fixture.runtime.block_on(async {
        let mut client = client(&fixture).await.send_compressed(Gzip).accept_compressed(Gzip);
        let tags = HashMap::from([("a".to_owned(), "b".to_owned())]);
        let request = pb::PublishRequest { tags, ..publication("kept:x", r#"{"n":1}"#) };
        let answer = client.publish(with_key(request)).await.unwrap().into_inner();
        let first = answer.result.unwrap();
        assert_eq!((first.offset, first.epoch.is_empty()), (1, false));
        let request = pb::BroadcastRequest {
            channels: vec!["kept:x".to_owned(), "none:y".to_owned(), "open:z".to_owned()],
            b64data: "eyJuIjoyfQ==".to_owned(),
            ..pb::BroadcastRequest::default()
        };
        let answer = client.broadcast(with_key(request)).await.unwrap().into_inner();
        let responses = answer.result.unwrap().responses;
        let codes: Vec<_> =
            responses.iter().map(|one| one.error.as_ref().map_or(0, |error| error.code)).collect();
        assert_eq!(codes, [0, 102, 0]);
        let history = pb::HistoryRequest {
            channel: "kept:x".to_owned(),
            limit: -1,
            since: None,
            reverse: true,
        };
        let answer = client.history(with_key(history.clone())).await.unwrap().into_inner();
        let found = answer.result.unwrap();
        let data: Vec<_> = found.publications.iter().map(|one| &one.data[..]).collect();
        assert_eq!(data, [br#"{"n":2}"#, br#"{"n":1}"#]);
        assert_eq!((found.offset, &found.epoch), (2, &first.epoch));
        assert_eq!(found.publications[1].tags["a"], "b");
        let request = pb::HistoryRemoveRequest { channel: "kept:x".to_owned() };
        assert_eq!(
            client.history_remove(with_key(request)).await.unwrap().into_inner().error,
            None
        );
        let answer = client.history(with_key(history)).await.unwrap().into_inner();
        assert_eq!(answer.result.unwrap().publications, []);
    });
    assert!(peer.receive().contains(r#""data":{"n":1}"#));
    assert!(peer.receive().contains(r#""data":{"n":2}"#));
}

#[test]
fn sessions_are_seen_and_controlled() {
    let fixture = started(&[]);
    let mut peer = fixture.admitted();
    peer.say(r#"{"id":2,"subscribe":{"channel":"kept:x"}}"#);
    peer.receive();
    fixture.runtime.block_on(async {
        let mut client = client(&fixture).await;
        let mut own = TidingsServiceClient::new(channel(&fixture).await);
        let name = || "kept:x".to_owned();
        let request = with_key(pb::PresenceRequest { channel: name() });
        let presence =
            client.presence(request).await.unwrap().into_inner().result.unwrap().presence;
        let [(id, info)] = &presence.iter().collect::<Vec<_>>()[..] else { panic!("one client") };
        assert_eq!((&***id, &*info.user), (&*info.client, "ann"));
        let request = with_key(pb::PresenceStatsRequest { channel: name() });
        let stats = client.presence_stats(request).await.unwrap().into_inner().result.unwrap();
        assert_eq!((stats.num_clients, stats.num_users), (1, 1));
        let request = with_key(pb::ChannelsRequest { pattern: "kept:*".to_owned() });
        let channels =
            client.channels(request).await.unwrap().into_inner().result.unwrap().channels;
        assert_eq!(channels["kept:x"].num_clients, 1);
        let info = client.info(with_key(pb::InfoRequest {})).await.unwrap().into_inner();
        assert_eq!(info.result.unwrap().nodes.len(), 1);
        let request = with_key(own::ChannelRequest { channel: name() });
        let details = own.channel(request).await.unwrap().into_inner().result.unwrap();
        assert_eq!((&*details.tier, details.num_clients, details.ttl), ("business", 1, None));
        let request = own::ClientsRequest { user: Some("ann".to_owned()), client: None };
        let clients = own.clients(with_key(request)).await.unwrap().into_inner().result.unwrap();
        assert_eq!(clients.clients[0].channels, ["kept:x"]);
        let user = || "ann".to_owned();
        let request = pb::SubscribeRequest {
            channel: "closed:y".to_owned(),
            user: user(),
            data: br#"{"hello":1}"#[..].into(),
            ..pb::SubscribeRequest::default()
        };
        let answer = client.subscribe(with_key(request)).await.unwrap().into_inner();
        assert_eq!(answer.error, None);
        let request = pb::UnsubscribeRequest {
            channel: name(),
            user: user(),
            ..pb::UnsubscribeRequest::default()
        };
        let answer = client.unsubscribe(with_key(request)).await.unwrap().into_inner();
        assert_eq!(answer.error, None);
        let refresh = pb::RefreshRequest { user: "other".to_owned(), ..Default::default() };
        let answer = client.refresh(with_key(refresh)).await.unwrap().into_inner();
        assert_eq!(answer.error, None);
        let advice = |code| Some(pb::Disconnect { code, reason: "enough".to_owned() });
        let request = |code| pb::DisconnectRequest {
            user: user(),
            disconnect: advice(code),
            ..pb::DisconnectRequest::default()
        };
        let answer = client.disconnect(with_key(request(70_000))).await.unwrap().into_inner();
        assert_eq!(answer.error.unwrap().code, 107);
        let answer = client.disconnect(with_key(request(4_000))).await.unwrap().into_inner();
        assert_eq!(answer.error, None);
    });
    let pushes: Vec<String> = (0..2).map(|_| peer.receive()).collect();
    assert!(pushes.iter().any(|push| push.contains(r#""hello":1"#)), "{pushes:?}");
    assert!(pushes.iter().any(|push| push.contains(r#""unsubscribe""#)), "{pushes:?}");
    assert_eq!(peer.close_code(), 4_000);
}

#[test]
fn users_and_tokens_are_revoked() {
    let fixture = started(&[]);
    fixture.runtime.block_on(async {
        let mut client = client(&fixture).await;
        let mut own = TidingsServiceClient::new(channel(&fixture).await);
        let user = || "bob".to_owned();
        let request = with_key(pb::BlockUserRequest { user: user(), expire_at: 0 });
        assert_eq!(client.block_user(request).await.unwrap().into_inner().error, None);
        let request = with_key(pb::RevokeTokenRequest { uid: "t".to_owned(), expire_at: 0 });
        assert_eq!(client.revoke_token(request).await.unwrap().into_inner().error, None);
        let request = pb::InvalidateUserTokensRequest { user: user(), ..Default::default() };
        let answer = client.invalidate_user_tokens(with_key(request)).await.unwrap().into_inner();
        assert_eq!(answer.error, None);
        let request = own::RevokeRequest { all_users: true, ..own::RevokeRequest::default() };
        let answer = own.revoke(with_key(request)).await.unwrap().into_inner();
        assert_eq!(answer.error.unwrap().code, 107);
        let mut seen = Vec::new();
        let mut cursor = String::new();
        loop {
            let request = own::RevocationsRequest { limit: 2, cursor };
            let page = own.revocations(with_key(request)).await.unwrap().into_inner();
            let page = page.result.unwrap();
            seen.extend(page.revocations.into_iter().map(|one| (one.user, one.token_id)));
            cursor = page.cursor;
            if cursor.is_empty() {
                break;
            }
        }
        seen.sort();
        let bob = || (Some(user()), None);
        assert_eq!(seen, [(None, Some("t".to_owned())), bob(), bob()]);
        let request = with_key(pb::UnblockUserRequest { user: user() });
        assert_eq!(client.unblock_user(request).await.unwrap().into_inner().error, None);
        let token_id = Some("t".to_owned());
        let request = own::UnrevokeRequest { token_id, ..own::UnrevokeRequest::default() };
        assert_eq!(own.unrevoke(with_key(request)).await.unwrap().into_inner().error, None);
    });
}

#[test]
fn a_batch_answers_its_commands_in_order() {
    let fixture = started(&[]);
    fixture.runtime.block_on(async {
        let mut client = client(&fixture).await;
        let publish = |data: &str| pb::Command {
            publish: Some(publication("kept:b", data)),
            ..pb::Command::default()
        };
        let stats = pb::PresenceStatsRequest { channel: "kept:b".to_owned() };
        let commands = vec![
            publish("1"),
            pb::Command { presence_stats: Some(stats), ..pb::Command::default() },
            pb::Command::default(),
            pb::Command { info: Some(pb::InfoRequest {}), ..publish("2") },
            pb::Command {
                rpc: Some(pb::RpcRequest { method: "x".to_owned(), ..Default::default() }),
                ..pb::Command::default()
            },
            publish(""),
            publish("3"),
        ];
        for parallel in [false, true] {
            let request = pb::BatchRequest { commands: commands.clone(), parallel };
            let replies = client.batch(with_key(request)).await.unwrap().into_inner().replies;
            let code = |reply: &pb::Reply| reply.error.as_ref().map_or(0, |error| error.code);
            let codes: Vec<_> = replies.iter().map(code).collect();
            assert_eq!(codes, [0, 0, 104, 107, 104, 107, 0]);
            assert!(replies[0].publish.is_some() && replies[1].presence_stats.is_some());
            let offset = |reply: &pb::Reply| reply.publish.as_ref().unwrap().offset;
            assert!(parallel || offset(&replies[6]) == offset(&replies[0]) + 1);
        }
        let request = pb::RpcRequest { method: "x".to_owned(), ..Default::default() };
        let answer = client.rpc(with_key(request)).await.unwrap().into_inner();
        assert_eq!(answer.error.unwrap().code, 104);
    });
}

#[test]
fn the_subscribers_of_a_channel_are_read_page_by_page() {
    let fixture = started(&[]);
    // There is no presence in this namespace.
    let peers: Vec<_> = (0..5)
        .map(|_| {
            let mut peer = fixture.admitted();
            peer.say(r#"{"id":2,"subscribe":{"channel":"open:many"}}"#);
            peer.receive();
            peer
        })
        .collect();
    let mut over_http: Vec<String> = Vec::new();
    let mut cursor = String::new();
    loop {
        let body = format!(r#"{{"channel":"open:many","limit":2,"cursor":"{cursor}"}}"#);
        let (_, answer) = fixture.api("subscribers", &body);
        let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
        let page = answer["result"]["subscribers"].as_array().unwrap();
        assert!(page.len() <= 2 && page.iter().all(|one| one["user"] == "ann"), "{answer}");
        over_http.extend(page.iter().map(|one| one["client"].as_str().unwrap().to_owned()));
        match answer["result"]["cursor"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => break,
        }
    }
    assert_eq!(over_http.len(), peers.len());
    assert!(over_http.is_sorted());
    fixture.runtime.block_on(async {
        let mut own = TidingsServiceClient::new(channel(&fixture).await);
        let request =
            own::SubscribersRequest { channel: "open:many".to_owned(), ..Default::default() };
        let page = own.subscribers(with_key(request)).await.unwrap().into_inner().result.unwrap();
        let clients: Vec<_> = page.subscribers.into_iter().map(|one| one.client).collect();
        assert_eq!((clients, &*page.cursor), (over_http, ""));
        let negative = own::SubscribersRequest {
            channel: "open:many".to_owned(),
            limit: -1,
            ..own::SubscribersRequest::default()
        };
        let answer = own.subscribers(with_key(negative)).await.unwrap().into_inner();
        assert_eq!(answer.error.unwrap().code, 107);
    });
}
