//! Generates the messages and the async ttrpc services from the `.proto` files.

use std::path::PathBuf;
use std::{env, fs, io};

use ttrpc_codegen::{Codegen, Customize, ProtobufCustomize};

const INPUTS: [&str; 6] = [
    "proto/agent.proto",
    "proto/csi.proto",
    "proto/health.proto",
    "proto/nacre.proto",
    "proto/oci.proto",
    "proto/types.proto",
];

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=proto");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("no OUT_DIR"))?);
    Codegen::new()
        .inputs(INPUTS)
        .include("proto")
        .rust_protobuf()
        .rust_protobuf_customize(
            ProtobufCustomize::default().gen_mod_rs(false).generate_accessors(false).lite_runtime(true),
        )
        .customize(Customize { async_all: true, ..Default::default() })
        .out_dir(&out)
        .run()?;
    // `include!` takes no inner attributes and no inner comments.
    for entry in fs::read_dir(&out)? {
        let path = entry?.path();
        let text = fs::read_to_string(&path)?;
        let kept: Vec<&str> =
            text.lines().filter(|line| !line.starts_with("#!") && !line.starts_with("//!")).collect();
        fs::write(&path, kept.join("\n"))?;
    }
    Ok(())
}
