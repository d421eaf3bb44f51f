//! Compiles the descriptions of the gRPC API: types and services for the server, the description
//! for reflection, and a client for tests.

use std::path::{Path, PathBuf};

const FILES: [&str; 2] = ["api.proto", "tidings/api/v1/api.proto"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    // In Rust, so that no protoc is needed.
    let mut compiler = protox::Compiler::new([Path::new("proto")])?;
    compiler.include_source_info(true).open_files(FILES)?;
    std::fs::write(out.join("descriptors.bin"), compiler.encode_file_descriptor_set())?;
    let descriptors = compiler.file_descriptor_set();
    for (folder, is_server) in [("server", true), ("client", false)] {
        let folder = out.join(folder);
        std::fs::create_dir_all(&folder)?;
        tonic_prost_build::configure()
            .build_server(is_server)
            .build_client(!is_server)
            .build_transport(false)
            .generate_default_stubs(is_server)
            .bytes(".")
            .disable_comments(["."])
            .out_dir(folder)
            .compile_fds(descriptors.clone())?;
    }
    Ok(())
}
