//! How worlds begin: which broker they stand on.

use crate::server::RedisServer;
use crate::world::World;

/// A world on one Redis.
pub(crate) fn world_on(redis: &RedisServer, name: &'static str) -> World {
    let address = format!("redis://127.0.0.1:{}", redis.port);
    World::start(name, |_| redis_at(&address))
}

/// Where a Redis is, for a node's configuration.
pub(crate) fn redis_at(address: &str) -> String {
    // Short, so that a killed node is soon cleared away, and what is not renewed is missed.
    format!(
        "[engine]\ntype = \"redis\"\n[engine.redis]\naddress = [\"{address}\"]\npresence_ttl = \"5s\"\n\
         lease = \"3s\"\n"
    )
}
