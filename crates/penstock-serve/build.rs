//! Compiles schemas/inference.proto into message types and the service.

use std::path::PathBuf;

use prost::Message;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let schemas = "../../schemas";
    println!("cargo:rerun-if-changed={schemas}/inference.proto");
    let descriptors = protox::compile(["inference.proto"], [schemas])?;
    // What reflection tells.
    let folder = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(folder.join("inference.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .bytes(".")
        .client_mod_attribute("inference", "#[cfg(test)]")
        .build_transport(false)
        .codec_path("crate::grpc::Codec")
        .compile_fds(descriptors)?;
    Ok(())
}
