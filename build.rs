//! Nothing to build: the file exists so that cargo unpacks the build dependency that holds `protoc`.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
}
