//! What a server says of itself by gRPC reflection: the gRPC services that it serves, and every file that describes them.
//!
//! Version 1 is asked, and v1alpha of who does not have it; their messages are the same on the wire. Whatever the server
//! answers, what is kept is bounded in files and in bytes, and all of it in time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use mesh_client::MeshChannel;
use prost::Message;
use prost_reflect::{DescriptorError, DescriptorPool};
use prost_types::FileDescriptorProto;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest as Ask;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse as Answer;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

/// Most files that one server may describe itself with: a service of a large house imports some dozens.
const FILES_MAX: usize = 500;

/// What all of them may have together, in bytes encoded.
const BYTES_MAX: usize = 8 << 20;

/// Largest answer, in bytes: gRPC's own default.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// Most gRPC services of one server.
const SERVICES_MAX: usize = 64;

/// gRPC's own services, which every server has and nobody calls from outside.
const HOUSEKEEPING: &str = "grpc.";

/// Both names of the one method of reflection, the newer first.
const PATHS: [&str; 2] = [
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

/// Why a server could not be understood.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReflectionFault {
    /// It did not answer, or answered with a status.
    #[error("reflection fails with {}: {}", mesh_runtime::code_name(.0.code()), .0.message())]
    Failed(#[from] Status),
    /// It answered with an error of reflection's own.
    #[error("reflection answers {code} to the question for {asked}: {message}")]
    Refused {
        /// What it was asked for.
        asked: String,
        /// The code that it gives.
        code: &'static str,
        /// Its words.
        message: String,
    },
    /// It ended the conversation, or answered another question than it was asked.
    #[error("reflection has no answer to the question for {0}")]
    Unanswered(String),
    /// A file is no file.
    #[error("reflection gives a file that cannot be read: {0}")]
    Unreadable(#[from] prost::DecodeError),
    /// More than a server may have.
    #[error("reflection gives more than {0}")]
    TooMuch(&'static str),
    /// The files do not fit together.
    #[error("reflection gives files that do not fit together: {0}")]
    Inconsistent(#[from] DescriptorError),
}

/// The gRPC services of a server, and the files that describe them.
#[derive(Debug)]
pub(super) struct Described {
    pub(super) services: Vec<String>,
    files: Files,
}

/// A `FileDescriptorSet` whose files stay as they are encoded: decoded, they would lose the options that are nobody's
/// here, `google.api.http` first of all.
#[derive(Clone, PartialEq, Message)]
struct Files {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    file: Vec<Bytes>,
}

impl Described {
    /// Their descriptors. Some milliseconds of work where there are many.
    pub(super) fn pool(self) -> Result<DescriptorPool, ReflectionFault> {
        Ok(DescriptorPool::decode(self.files.encode_to_vec().as_slice())?)
    }
}

/// Asks a server for everything about itself, within `limit`.
pub(super) async fn describe(channel: MeshChannel, limit: Duration) -> Result<Described, ReflectionFault> {
    let [newer, older] = PATHS;
    match Conversation::open(channel.clone(), newer, limit).await {
        Err(status) if status.code() == Code::Unimplemented => {
            Conversation::open(channel, older, limit).await?.describe().await
        }
        opened => match opened?.describe().await {
            // Some answer the head first and say only then that there is no such method.
            Err(ReflectionFault::Failed(status)) if status.code() == Code::Unimplemented => {
                Conversation::open(channel, older, limit).await?.describe().await
            }
            described => described,
        },
    }
}

/// One stream of questions, each asked when the one before is answered. All of it goes to the same instance.
struct Conversation {
    asks: mpsc::Sender<ServerReflectionRequest>,
    answers: Streaming<ServerReflectionResponse>,
    files: BTreeMap<String, Bytes>,
    bytes: usize,
}

impl Conversation {
    async fn open(channel: MeshChannel, path: &'static str, limit: Duration) -> Result<Self, Status> {
        let (asks, receiver) = mpsc::channel(1);
        let mut request = Request::new(ReceiverStream::new(receiver));
        request.set_timeout(limit);
        let codec = ProstCodec::<ServerReflectionRequest, ServerReflectionResponse>::default();
        let mut grpc = Grpc::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
        let answers = grpc.streaming(request, PathAndQuery::from_static(path), codec).await?.into_inner();
        Ok(Self { asks, answers, files: BTreeMap::new(), bytes: 0 })
    }

    async fn describe(mut self) -> Result<Described, ReflectionFault> {
        let listed = match self.ask("the list of services", Ask::ListServices(String::new())).await? {
            Answer::ListServicesResponse(listed) => listed.service,
            _ => return Err(ReflectionFault::Unanswered("the list of services".to_owned())),
        };
        let services: Vec<String> =
            listed.into_iter().map(|service| service.name).filter(|name| !name.starts_with(HOUSEKEEPING)).collect();
        if services.len() > SERVICES_MAX {
            return Err(ReflectionFault::TooMuch("64 services"));
        }
        for service in &services {
            let mut wanted = self.file(service, Ask::FileContainingSymbol(service.clone())).await?;
            while let Some(name) = wanted.pop_first() {
                if self.files.contains_key(&name) {
                    continue;
                }
                wanted.extend(self.file(&name, Ask::FileByFilename(name.clone())).await?);
                // Else it might be asked for again and again.
                if !self.files.contains_key(&name) {
                    return Err(ReflectionFault::Unanswered(name));
                }
            }
        }
        Ok(Described { services, files: Files { file: self.files.into_values().collect() } })
    }

    /// Keeps the files of an answer; says which ones they import.
    async fn file(&mut self, asked: &str, ask: Ask) -> Result<BTreeSet<String>, ReflectionFault> {
        let Answer::FileDescriptorResponse(answer) = self.ask(asked, ask).await? else {
            return Err(ReflectionFault::Unanswered(asked.to_owned()));
        };
        let mut imports = BTreeSet::new();
        for encoded in answer.file_descriptor_proto {
            self.bytes += encoded.len();
            if self.bytes > BYTES_MAX {
                return Err(ReflectionFault::TooMuch("8 MiB of files"));
            }
            let file = FileDescriptorProto::decode(encoded.as_slice())?;
            self.files.insert(file.name().to_owned(), encoded.into());
            imports.extend(file.dependency);
            if self.files.len() > FILES_MAX {
                return Err(ReflectionFault::TooMuch("500 files"));
            }
        }
        Ok(imports)
    }

    async fn ask(&mut self, asked: &str, ask: Ask) -> Result<Answer, ReflectionFault> {
        let request = ServerReflectionRequest { host: String::new(), message_request: Some(ask) };
        // Where the stream has ended, its status says more than the failed send.
        let _ = self.asks.send(request).await;
        match self.answers.message().await?.and_then(|answer| answer.message_response) {
            Some(Answer::ErrorResponse(error)) => Err(ReflectionFault::Refused {
                asked: asked.to_owned(),
                code: mesh_runtime::code_name(error.error_code.into()),
                message: error.error_message,
            }),
            Some(answer) => Ok(answer),
            None => Err(ReflectionFault::Unanswered(asked.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transcode::ServiceRoutes;

    #[test]
    fn files_keep_the_options_that_are_nobodys_here_in_whatever_order_they_come() {
        let mut files = Files::decode(mesh_api::FILE_DESCRIPTOR_SET).expect("the build script compiled it");
        files.file.reverse();
        let services = vec!["shop.user.v1.UserService".to_owned()];
        let pool = Described { services: services.clone(), files }.pool().expect("the files fit together");
        let routes = ServiceRoutes::compile("user-svc", pool, &services).expect("its rules are understood");
        assert!(routes.routes().iter().any(|route| route.template() == "/v1/users/{user_id}"));
    }

    #[test]
    fn a_file_that_is_missing_is_told() {
        let mut files = Files::decode(mesh_api::FILE_DESCRIPTOR_SET).expect("the build script compiled it");
        files.file.retain(|file| {
            FileDescriptorProto::decode(&**file).is_ok_and(|file| file.name() != "google/api/annotations.proto")
        });
        let fault = Described { services: Vec::new(), files }.pool().expect_err("an import is missing");
        assert!(fault.to_string().contains("google/api/annotations.proto"), "{fault}");
    }
}
