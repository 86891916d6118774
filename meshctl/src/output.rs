//! How answers are printed: columns for people, canonical protobuf JSON for programs. Answers go to stdout, everything
//! else to stderr.

use std::io::{self, Write};
use std::sync::LazyLock;

use comfy_table::{ContentArrangement, Table, presets};
use prost_reflect::{DescriptorPool, DynamicMessage, ReflectMessage, SerializeOptions};
use serde_json::ser::Formatter;

use crate::failure::Failure;

/// Every message of the house.
static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(mesh_api::FILE_DESCRIPTOR_SET).expect("the build script has compiled this very set")
});

/// The canonical JSON of `message`, which is a `full_name`, in one line.
pub(crate) fn json<M: prost::Message>(full_name: &str, message: &M) -> Result<String, Failure> {
    let descriptor = POOL.get_message_by_name(full_name).expect("the callers name messages of this house");
    let mut dynamic = DynamicMessage::new(descriptor);
    dynamic.transcode_from(message).expect("a message transcodes to its own descriptor");
    dynamic_json(&dynamic)
}

/// The canonical JSON of a message known by reflection only, in one line.
pub(crate) fn dynamic_json(message: &DynamicMessage) -> Result<String, Failure> {
    let mut buffer = Vec::new();
    write_json(message, &mut serde_json::Serializer::new(&mut buffer))?;
    Ok(String::from_utf8_lossy(&buffer).into_owned())
}

/// The same over several lines, for people.
pub(crate) fn pretty_json(message: &DynamicMessage) -> Result<String, Failure> {
    let mut buffer = Vec::new();
    write_json(message, &mut serde_json::Serializer::pretty(&mut buffer))?;
    Ok(String::from_utf8_lossy(&buffer).into_owned())
}

/// Some messages have no JSON: a google.protobuf.Any of an unknown type, a timestamp past the year 9999. A program that
/// reads the answer must not take half of one for all of it.
fn write_json<F: Formatter>(
    message: &DynamicMessage,
    serializer: &mut serde_json::Serializer<&mut Vec<u8>, F>,
) -> Result<(), Failure> {
    message.serialize_with_options(serializer, &SerializeOptions::new()).map_err(|error| {
        let name = message.descriptor().full_name().to_owned();
        Failure::Failed(format!("the answer, a {name}, cannot be shown as JSON: {error}"))
    })
}

/// Prints lines on stdout. Unlike `println!` it does not panic when the reader has gone.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    if !text.ends_with('\n') {
        out.write_all(b"\n")?;
    }
    out.flush()?;
    Ok(())
}

/// Says something about what happens, on stderr. Nobody may be listening there, and that is no failure.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Columns without lines, which `grep` and `awk` read as well as people do.
pub(crate) fn columns(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.iter().copied());
    table
}

/// A table with lines, for the end of a demo.
pub(crate) fn framed(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.iter().copied());
    table
}

/// `columns` as text: no padding at the ends of lines.
pub(crate) fn trimmed(table: &Table) -> String {
    table.lines().map(|line| line.trim().to_owned() + "\n").collect()
}

#[cfg(test)]
mod tests {
    use mesh_api::registry::v1::{Instance, Liveness, Position, WatchResponse};

    use super::*;

    #[test]
    fn json_is_canonical_and_one_line() {
        let instance = Instance {
            instance_id: "01".to_owned(),
            incarnation: 7,
            liveness: Liveness::Alive.into(),
            ttl: Some(prost_types::Duration { seconds: 3, nanos: 500_000_000 }),
            ..Instance::default()
        };
        assert_eq!(
            json("mesh.registry.v1.Instance", &instance).expect("it has a JSON"),
            r#"{"instanceId":"01","incarnation":"7","ttl":"3.500s","liveness":"LIVENESS_ALIVE"}"#
        );
    }

    #[test]
    fn what_has_no_json_is_a_failure_and_not_another_answer() {
        let any = prost_types::Any { type_url: "type.googleapis.com/nobody.knows.This".to_owned(), value: vec![1] };
        let any = any.transcode_to_dynamic();
        for shown in [dynamic_json(&any), pretty_json(&any)] {
            let failure = shown.expect_err("its type is unknown");
            assert!(failure.to_string().starts_with("the answer, a google.protobuf.Any, cannot be shown"), "{failure}");
        }
    }

    #[test]
    fn columns_end_where_their_text_ends() {
        let mut table = columns(&["SERVICE", "N"]);
        table.add_row(["user-svc", "3"]);
        assert_eq!(trimmed(&table), "SERVICE   N\nuser-svc  3\n");
    }

    #[test]
    fn a_message_of_each_kind_that_is_printed_is_in_the_pool() {
        json(
            "mesh.registry.v1.WatchResponse",
            &WatchResponse { position: Some(Position::default()), ..Default::default() },
        )
        .expect("it has a JSON");
        for name in ["ServiceSummary", "Instance", "SetAdminStateResponse"] {
            assert!(POOL.get_message_by_name(&format!("mesh.registry.v1.{name}")).is_some(), "{name}");
        }
    }
}
