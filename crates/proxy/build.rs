//! Generates the messages of `proto/proxy.proto`, without protoc.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto/proxy.proto");
    let files = protox::compile(["proxy.proto"], ["proto"])?;
    prost_build::Config::new()
        .bytes(["."])
        .btree_map(["."])
        .disable_comments(["."])
        .compile_fds(files)?;
    Ok(())
}
