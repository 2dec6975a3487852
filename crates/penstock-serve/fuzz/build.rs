//! The messages of schemas/inference.proto, without the service.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let schemas = "../../../schemas";
    println!("cargo:rerun-if-changed={schemas}/inference.proto");
    let descriptors = protox::compile(["inference.proto"], [schemas])?;
    prost_build::Config::new()
        .bytes(["."])
        .compile_fds(descriptors)?;
    Ok(())
}
