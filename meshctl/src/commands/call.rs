//! `call SERVICE METHOD JSON`: a unary call as any caller in the mesh would make it, of a method known by reflection only.

use std::io::Read;

use bytes::BufMut;
use http::uri::PathAndQuery;
use mesh_client::MeshChannel;
use mesh_runtime::clock;
use prost::Message;
use prost_reflect::{DynamicMessage, MessageDescriptor, MethodDescriptor};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Code, Request, Response, Status};
use tonic_types::StatusExt;

use crate::args::{CallArgs, Format, Globals};
use crate::bearer::TokenSource;
use crate::commands::caller::{Caller, caller};
use crate::commands::reflection::{MethodName, Reflection, path_of};
use crate::failure::Failure;
use crate::output::{dynamic_json, pretty_json, print};

/// Longest request read from stdin, in bytes: what a server takes at most, by gRPC's custom, as JSON with room to spare.
const STDIN_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// `meshctl call SERVICE METHOD JSON`. All of it, finding out whom and what to call included, has one deadline.
pub(crate) async fn call(globals: &Globals, args: &CallArgs) -> Result<(), Failure> {
    let text = match args.request.as_str() {
        "-" => read_stdin()?,
        text => text.to_owned(),
    };
    let token = args.token.as_ref().map(TokenSource::read).transpose()?;
    // Counted from here: what is read from stdin comes at its own pace.
    let deadline = clock::now() + globals.timeout;
    let Caller { mesh, .. } = caller(globals, &args.caller, &args.service, deadline).await?;
    let channel = mesh.channel(&args.service);

    let left = || deadline.saturating_duration_since(clock::now());
    let method = Reflection::open(channel.clone(), left()).await?.find(&MethodName::read(&args.method)).await?;
    if method.is_client_streaming() || method.is_server_streaming() {
        return Err(Failure::Usage(format!("{} is a stream; meshctl calls unary methods only", path_of(&method))));
    }
    let mut request = Request::new(read_request(&method.input(), &text)?);
    request.set_timeout(left());
    if let Some(token) = &token {
        token.attach(&mut request);
    }
    let answer = unary(channel, &method, request).await?.map_err(|status| refused(status, token.is_some()))?;
    print(&match globals.output {
        Format::Json => dynamic_json(&answer)?,
        Format::Table => pretty_json(&answer)?,
    })
}

fn read_stdin() -> Result<String, Failure> {
    let mut text = String::new();
    let length = std::io::stdin()
        .lock()
        .take(STDIN_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(|error| Failure::Usage(format!("the request on stdin cannot be read: {error}")))?;
    if length as u64 > STDIN_BYTES_MAX {
        return Err(Failure::Usage(format!("the request on stdin is longer than {STDIN_BYTES_MAX} bytes")));
    }
    Ok(text)
}

/// Reads protobuf JSON; a mistake is answered with what the message looks like.
fn read_request(descriptor: &MessageDescriptor, text: &str) -> Result<DynamicMessage, Failure> {
    let mut json = serde_json::Deserializer::from_str(text);
    let read =
        DynamicMessage::deserialize(descriptor.clone(), &mut json).and_then(|message| json.end().map(|()| message));
    read.map_err(|error| {
        let fields: Vec<_> = descriptor.fields().map(|field| field.json_name().to_owned()).collect();
        let fields =
            if fields.is_empty() { "no fields".to_owned() } else { format!("the fields {}", fields.join(", ")) };
        Failure::Usage(format!("the request is no {}: {error}; it has {fields}", descriptor.full_name()))
    })
}

/// What a refusal means for whoever called with a token, or without one. A reason that is not about tokens, such as a wrong
/// password, needs none of that.
fn refused(status: Status, with_token: bool) -> Failure {
    let reason = status.get_details_error_info().map(|info| info.reason);
    let about_it = |prefix: &str| reason.as_deref().is_none_or(|reason| reason.starts_with(prefix));
    let advice = match (status.code(), with_token) {
        (Code::Unauthenticated, false) if about_it("TOKEN_") => {
            "no token was sent. Login of user-svc gives a user one, and `meshctl token --key FILE` an operator (with \
             `meshctl up`: mesh-data/keys/operator.pem); the call takes it from MESH_TOKEN or --token TOKEN|@FILE"
        }
        (Code::Unauthenticated, true) if about_it("TOKEN_") => {
            "the token that was sent is not taken. `meshctl token --key FILE` prints a new one, with a key that the service \
             trusts (its --trusted-jwks); it goes to MESH_TOKEN or --token TOKEN|@FILE"
        }
        (Code::PermissionDenied, true) if about_it("ROLE_") => {
            "the token that was sent is good, but not for this. `meshctl token --key FILE --role admin` prints one for \
             operators"
        }
        _ => return status.into(),
    };
    Failure::RefusedWith(Box::new(status), advice)
}

/// The answer of the service; a failure is a call that could not be made.
async fn unary(
    channel: MeshChannel,
    method: &MethodDescriptor,
    request: Request<DynamicMessage>,
) -> Result<Result<DynamicMessage, Status>, Failure> {
    let path: PathAndQuery = format!("/{}", path_of(method))
        .parse()
        .map_err(|error| Failure::Failed(format!("{} cannot be called: {error}", path_of(method))))?;
    let mut grpc = tonic::client::Grpc::new(channel);
    let ready: Result<(), Status> = grpc.ready().await;
    ready?;
    let answer = grpc.unary(request, path, DynamicCodec { answer: method.output() }).await;
    Ok(answer.map(Response::into_inner))
}

/// Messages that no Rust type stands for.
#[derive(Debug)]
struct DynamicCodec {
    answer: MessageDescriptor,
}

/// Its two halves; decoding has to know what to read.
#[derive(Debug)]
struct DynamicEncoder;

#[derive(Debug)]
struct DynamicDecoder(MessageDescriptor);

impl Codec for DynamicCodec {
    type Encode = DynamicMessage;
    type Decode = DynamicMessage;
    type Encoder = DynamicEncoder;
    type Decoder = DynamicDecoder;

    fn encoder(&mut self) -> DynamicEncoder {
        DynamicEncoder
    }

    fn decoder(&mut self) -> DynamicDecoder {
        DynamicDecoder(self.answer.clone())
    }
}

impl Encoder for DynamicEncoder {
    type Item = DynamicMessage;
    type Error = Status;

    fn encode(&mut self, item: DynamicMessage, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put_slice(&item.encode_to_vec());
        Ok(())
    }
}

impl Decoder for DynamicDecoder {
    type Item = DynamicMessage;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<DynamicMessage>, Status> {
        DynamicMessage::decode(self.0.clone(), from)
            .map(Some)
            .map_err(|error| Status::internal(format!("the answer is no {}: {error}", self.0.full_name())))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use prost_reflect::DescriptorPool;
    use tonic_types::ErrorDetails;

    use super::*;

    fn descriptor(name: &str) -> MessageDescriptor {
        let pool = DescriptorPool::decode(mesh_api::FILE_DESCRIPTOR_SET).expect("the build script compiled it");
        pool.get_message_by_name(name).expect("it is one of the house")
    }

    #[test]
    fn a_request_takes_both_spellings_of_a_field() {
        let get_user = descriptor("shop.user.v1.GetUserRequest");
        for text in [r#"{"user_id":"x"}"#, r#"{"userId":"x"}"#] {
            let message = read_request(&get_user, text).expect("it is a request");
            assert_eq!(dynamic_json(&message).expect("it has a JSON"), r#"{"userId":"x"}"#);
        }
    }

    #[test]
    fn who_is_not_known_is_told_how_to_be() {
        for (code, with_token, advice) in [
            (Code::Unauthenticated, false, Some("no token was sent")),
            (Code::Unauthenticated, true, Some("is not taken")),
            (Code::PermissionDenied, true, Some("--role admin")),
            (Code::NotFound, true, None),
        ] {
            let lines = refused(Status::new(code, "no"), with_token).lines();
            let told = lines.get(1);
            assert_eq!(told.is_some(), advice.is_some(), "{lines:?}");
            if let (Some(told), Some(advice)) = (told, advice) {
                assert!(told.contains(advice) && told.contains("`meshctl token --key FILE"), "{told}");
            }
        }
    }

    #[test]
    fn a_wrong_password_is_not_taken_for_a_missing_token() {
        let lines = |reason: &str| {
            let details = ErrorDetails::with_error_info(reason, "meshwork", HashMap::new());
            refused(Status::with_error_details(Code::Unauthenticated, "no", details), false).lines()
        };
        assert_eq!(lines("CREDENTIALS_INVALID").len(), 2);
        assert_eq!(lines("TOKEN_MISSING").len(), 3);
    }

    #[test]
    fn a_wrong_request_is_told_what_a_right_one_has() {
        let get_user = descriptor("shop.user.v1.GetUserRequest");
        for text in [r#"{"name":"x"}"#, r#"{"userId":7}"#, "{", "{} {}", "[]"] {
            let failure = read_request(&get_user, text).expect_err(text);
            let words = failure.to_string();
            assert!(words.starts_with("the request is no shop.user.v1.GetUserRequest: "), "{words}");
            assert!(words.ends_with("it has the fields userId"), "{words}");
        }
    }
}
