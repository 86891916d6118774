//! Learning what a server serves from the server itself: `grpc.reflection.v1`, over the mesh's own channel.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mesh_client::MeshChannel;
use prost::Message;
use prost_reflect::{DescriptorPool, MethodDescriptor, ServiceDescriptor};
use prost_types::FileDescriptorProto;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Streaming};
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest as Ask;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse as Answer;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

use crate::failure::Failure;

/// Most files that one server may describe itself with; more is a server that makes them up.
const FILES_MAX: usize = 2000;

/// Services that every server has and nobody means by a bare method name.
const HOUSEKEEPING: [&str; 2] = ["grpc.health.", "grpc.reflection."];

/// A method as the command line names it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum MethodName<'a> {
    /// `GetUser`: of whichever service has one.
    Short(&'a str),
    /// `shop.user.v1.UserService/GetUser`, or with a dot.
    Full { service: &'a str, method: &'a str },
}

impl<'a> MethodName<'a> {
    pub(crate) fn read(text: &'a str) -> MethodName<'a> {
        let text = text.strip_prefix('/').unwrap_or(text);
        match text.rsplit_once(['/', '.']) {
            Some((service, method)) => MethodName::Full { service, method },
            None => MethodName::Short(text),
        }
    }
}

/// One conversation with a server about itself. All of it goes to the same instance.
pub(crate) struct Reflection {
    asks: mpsc::Sender<ServerReflectionRequest>,
    answers: Streaming<ServerReflectionResponse>,
    files: BTreeMap<String, FileDescriptorProto>,
}

impl Reflection {
    pub(crate) async fn open(channel: MeshChannel, limit: Duration) -> Result<Reflection, Failure> {
        let (asks, receiver) = mpsc::channel(1);
        let mut request = Request::new(ReceiverStream::new(receiver));
        request.set_timeout(limit);
        let answers = ServerReflectionClient::new(channel)
            .max_decoding_message_size(16 * 1024 * 1024)
            .server_reflection_info(request)
            .await?
            .into_inner();
        Ok(Reflection { asks, answers, files: BTreeMap::new() })
    }

    /// Finds the method that `name` means.
    pub(crate) async fn find(&mut self, name: &MethodName<'_>) -> Result<MethodDescriptor, Failure> {
        let served = self.services().await?;
        let candidates: Vec<String> = match name {
            MethodName::Full { service, .. } => {
                if !served.iter().any(|serves| serves == service) {
                    return Err(Failure::Usage(format!(
                        "no gRPC service {service:?} there; served are {}",
                        served.join(", ")
                    )));
                }
                vec![(*service).to_owned()]
            }
            MethodName::Short(_) => served
                .into_iter()
                .filter(|service| !HOUSEKEEPING.iter().any(|prefix| service.starts_with(prefix)))
                .collect(),
        };
        let mut services = Vec::new();
        for candidate in &candidates {
            services.push(self.describe(candidate).await?);
        }
        choose(name, &services)
    }

    async fn services(&mut self) -> Result<Vec<String>, Failure> {
        match self.ask(Ask::ListServices(String::new())).await? {
            Answer::ListServicesResponse(list) => Ok(list.service.into_iter().map(|service| service.name).collect()),
            other => Err(misfit(&other)),
        }
    }

    /// One service with everything that its messages are made of.
    async fn describe(&mut self, service: &str) -> Result<ServiceDescriptor, Failure> {
        let answer = self.ask(Ask::FileContainingSymbol(service.to_owned())).await?;
        let mut wanted = self.keep(answer)?;
        while let Some(file) = wanted.pop_first() {
            if self.files.contains_key(&file) {
                continue;
            }
            let answer = self.ask(Ask::FileByFilename(file)).await?;
            wanted.extend(self.keep(answer)?);
        }
        let mut pool = DescriptorPool::new();
        pool.add_file_descriptor_protos(self.files.values().cloned())
            .map_err(|error| Failure::Failed(format!("the server describes itself inconsistently: {error}")))?;
        pool.get_service_by_name(service)
            .ok_or_else(|| Failure::Failed(format!("the server lists {service} but does not describe it")))
    }

    /// Keeps the files of an answer; says which ones they import.
    fn keep(&mut self, answer: Answer) -> Result<BTreeSet<String>, Failure> {
        let Answer::FileDescriptorResponse(files) = answer else { return Err(misfit(&answer)) };
        let mut imports = BTreeSet::new();
        for encoded in files.file_descriptor_proto {
            let file = FileDescriptorProto::decode(encoded.as_slice())
                .map_err(|error| Failure::Failed(format!("the server's description cannot be read: {error}")))?;
            imports.extend(file.dependency.iter().cloned());
            self.files.insert(file.name().to_owned(), file);
        }
        match self.files.len() {
            0..=FILES_MAX => Ok(imports),
            _ => Err(Failure::Failed(format!("the server describes itself with more than {FILES_MAX} files"))),
        }
    }

    async fn ask(&mut self, ask: Ask) -> Result<Answer, Failure> {
        let request = ServerReflectionRequest { host: String::new(), message_request: Some(ask) };
        // Where the stream has ended, its status says more than the failed send.
        let _ = self.asks.send(request).await;
        match self.answers.message().await?.and_then(|answer| answer.message_response) {
            Some(Answer::ErrorResponse(error)) => Err(Failure::Failed(format!(
                "the server's reflection answers {}: {}",
                mesh_runtime::code_name(error.error_code.into()),
                error.error_message
            ))),
            Some(answer) => Ok(answer),
            None => Err(Failure::Failed("the server ended its reflection".to_owned())),
        }
    }
}

fn misfit(answer: &Answer) -> Failure {
    Failure::Failed(format!("the server's reflection gave an answer to another question: {answer:?}"))
}

/// The one method among `services` that `name` means.
fn choose(name: &MethodName<'_>, services: &[ServiceDescriptor]) -> Result<MethodDescriptor, Failure> {
    let (MethodName::Short(wanted) | MethodName::Full { method: wanted, .. }) = name;
    let methods: Vec<_> = services.iter().flat_map(ServiceDescriptor::methods).collect();
    let mut found: Vec<_> = methods.iter().filter(|method| method.name() == *wanted).cloned().collect();
    match found.len() {
        1 => Ok(found.remove(0)),
        0 => {
            let all: Vec<_> = methods.iter().map(|method| method.name().to_owned()).collect();
            Err(Failure::Usage(format!("no method {wanted:?} there; there are {}", all.join(", "))))
        }
        _ => {
            let full: Vec<_> = found.iter().map(path_of).collect();
            Err(Failure::Usage(format!("several services have a method {wanted:?}; say which: {}", full.join(", "))))
        }
    }
}

/// `shop.user.v1.UserService/GetUser`.
pub(crate) fn path_of(method: &MethodDescriptor) -> String {
    format!("{}/{}", method.parent_service().full_name(), method.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn services() -> Vec<ServiceDescriptor> {
        let pool = DescriptorPool::decode(mesh_api::FILE_DESCRIPTOR_SET).expect("the build script compiled it");
        pool.services().collect()
    }

    #[test]
    fn a_method_is_named_short_with_a_slash_or_with_dots() {
        let full = MethodName::Full { service: "shop.user.v1.UserService", method: "GetUser" };
        for text in [
            "shop.user.v1.UserService/GetUser",
            "/shop.user.v1.UserService/GetUser",
            "shop.user.v1.UserService.GetUser",
        ] {
            assert_eq!(MethodName::read(text), full, "{text}");
        }
        assert_eq!(MethodName::read("GetUser"), MethodName::Short("GetUser"));
    }

    #[test]
    fn a_short_name_finds_its_service() {
        let method = choose(&MethodName::Short("GetUser"), &services()).expect("there is one");
        assert_eq!(path_of(&method), "shop.user.v1.UserService/GetUser");
    }

    #[test]
    fn a_wrong_name_is_told_the_right_ones() {
        let failure = choose(&MethodName::Short("getuser"), &services()).expect_err("names have capitals");
        assert!(failure.to_string().contains("GetUser"), "{failure}");
    }

    #[test]
    fn a_name_that_several_services_share_asks_which() {
        let mut twice = services();
        twice.extend(services());
        let failure = choose(&MethodName::Short("GetUser"), &twice).expect_err("there are two");
        assert!(failure.to_string().contains("shop.user.v1.UserService/GetUser"), "{failure}");
    }
}
