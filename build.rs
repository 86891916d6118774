//! Compiles `proto/**/*.proto` to Rust and to one descriptor set for reflection, with no tool but cargo. What is under
//! `proto/etcd` is a foreign API that the house calls and does not serve: it has a descriptor set of its own.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use protox::Compiler;
use protox::prost_reflect::DescriptorPool;

/// Messages that hold a secret; `proto/redact.rs` writes their `Debug`, and its test finds those that are missing here.
const SECRET: [&str; 7] = [
    "shop.user.v1.CreateUserRequest",
    "shop.user.v1.LoginRequest",
    "shop.user.v1.LoginResponse",
    "shop.user.v1.RefreshRequest",
    "shop.user.v1.RefreshResponse",
    "shop.user.v1.LogoutRequest",
    "shop.user.v1.ChangePasswordRequest",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new("proto");
    println!("cargo:rerun-if-changed=proto");

    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR for a build script")?);

    let (foreign, own) = proto_files(root)?.into_iter().partition(|file| file.starts_with(root.join("etcd")));
    let house = compile(root, own)?;
    let etcd = compile(root, foreign)?;
    // The encoded set keeps extensions such as google.api.http; the decoded prost types would drop them.
    fs::write(out.join("descriptor.bin"), house.encode_file_descriptor_set())?;
    fs::write(out.join("etcd.bin"), etcd.encode_file_descriptor_set())?;

    fs::write(out.join("rpc.rs"), rpcs(&house.descriptor_pool())?)?;

    let mut set = house.file_descriptor_set();
    set.file.retain(|file| !file.package().starts_with("google.api"));

    // The registry's server once more, with messages of the first kind but for the two that it encodes once for many.
    let mut registry = set.clone();
    registry.file.retain(|file| file.name() == "mesh/registry/v1/registry.proto");
    let encoded = out.join("encoded");
    fs::create_dir_all(&encoded)?;
    tonic_prost_build::configure()
        .build_client(false)
        .extern_path(".mesh.registry.v1", "crate::registry::v1")
        .extern_path(".mesh.registry.v1.ResolveResponse", "crate::encoded::Encoded")
        .extern_path(".mesh.registry.v1.WatchResponse", "crate::encoded::Encoded")
        .codec_path("crate::encoded::Lean")
        .out_dir(encoded)
        .compile_fds(registry)?;

    tonic_prost_build::configure()
        .bytes(".mesh")
        .btree_map(".mesh")
        .boxed("mesh.store.v1.Stored.record.identity") // ten times the size of its siblings
        .skip_debug(SECRET)
        .compile_fds(set)?;
    tonic_prost_build::configure().bytes(".").compile_fds(etcd.file_descriptor_set())?;
    Ok(())
}

/// `enum Rpc`: every method of every service of the shop. `proto/access.rs` says of each who may call it, in a `match` that
/// does not compile when one is missing.
fn rpcs(pool: &DescriptorPool) -> Result<String, Box<dyn std::error::Error>> {
    let services = pool.services().filter(|service| service.package_name().starts_with("shop."));
    let methods: Vec<_> = services.flat_map(|service| service.methods().collect::<Vec<_>>()).collect();
    let mut names = HashSet::new();
    if let Some(twice) = methods.iter().find(|method| !names.insert(method.name())) {
        return Err(format!(
            "two methods of the shop are named {}: rpcs() in build.rs must tell them apart",
            twice.name()
        )
        .into());
    }
    let each = |line: &dyn Fn(&str, &str) -> String| -> String {
        methods
            .iter()
            .map(|method| line(method.name(), &format!("/{}/{}", method.parent_service().full_name(), method.name())))
            .collect()
    };
    Ok(format!(
        "/// A method of a service of the shop.\n#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]\npub enum Rpc {{\n{}}}\n\n\
         impl Rpc {{\n    /// Every method, service by service.\n    pub const ALL: &'static [Self] = &[\n{}    ];\n\n    \
         /// As HTTP/2 names it: `/shop.user.v1.UserService/GetUser`.\n    #[must_use]\n    pub const fn path(self) -> &'static str {{\n        \
         match self {{\n{}        }}\n    }}\n\n    /// The method of this path, if it is one of the shop's.\n    #[must_use]\n    \
         pub fn from_path(path: &str) -> Option<Self> {{\n        match path {{\n{}            _ => None,\n        }}\n    }}\n}}\n",
        each(&|name, path| format!("    /// `{path}`\n    {name},\n")),
        each(&|name, _| format!("        Self::{name},\n")),
        each(&|name, path| format!("            Self::{name} => \"{path}\",\n")),
        each(&|name, path| format!("            \"{path}\" => Some(Self::{name}),\n")),
    ))
}

fn compile(root: &Path, files: Vec<PathBuf>) -> Result<Compiler, Box<dyn std::error::Error>> {
    let mut compiler = Compiler::new([root])?;
    compiler.include_imports(true).include_source_info(true);
    compiler.open_files(files)?;
    Ok(compiler)
}

/// Every `.proto` below `dir`, relative to the include root, in a stable order.
fn proto_files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(proto_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
