//! The families of gRFC A66 and A96.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::registry::Unit;

use super::buckets::{BYTES, Bounds, Histogram, NANOS, REPEATS, TRANSPARENT};
use super::calls::{Ended, Repeated};
use super::status;
use crate::target::Target;

/// Writes every family, also one without a series: what can be asked for is seen from the first scrape on.
pub(super) fn encode(encoder: &mut DescriptorEncoder<'_>, targets: &[Arc<Target>]) -> fmt::Result {
    started(encoder, targets)?;
    ended(
        encoder,
        targets,
        &Family {
            name: "grpc_client_attempt_duration",
            help: "Time from the pick of an endpoint to the trailers of its answer.",
            scale: Scale::Seconds,
            bounds: &NANOS,
        },
        |ended| &ended.attempt,
    )?;
    ended(
        encoder,
        targets,
        &Family {
            name: "grpc_client_attempt_sent_total_compressed_message_size",
            help: "Message bytes sent in an attempt, compressed, without framing.",
            scale: Scale::Bytes,
            bounds: &BYTES,
        },
        |ended| &ended.sent,
    )?;
    ended(
        encoder,
        targets,
        &Family {
            name: "grpc_client_attempt_rcvd_total_compressed_message_size",
            help: "Message bytes received in an attempt, compressed, without framing.",
            scale: Scale::Bytes,
            bounds: &BYTES,
        },
        |ended| &ended.received,
    )?;
    ended(
        encoder,
        targets,
        &Family {
            name: "grpc_client_call_duration",
            help: "Time from a call to its status, waiting and every attempt included.",
            scale: Scale::Seconds,
            bounds: &NANOS,
        },
        |ended| &ended.call,
    )?;
    repeated(
        encoder,
        targets,
        &Family {
            name: "grpc_client_call_retries",
            help: "Retries in a call that was retried, those of what was never processed apart.",
            scale: Scale::One,
            bounds: &REPEATS,
        },
        |repeated| &repeated.retries,
    )?;
    repeated(
        encoder,
        targets,
        &Family {
            name: "grpc_client_call_transparent_retries",
            help: "Repetitions, in a call that had any, of what was provably not processed.",
            scale: Scale::One,
            bounds: &TRANSPARENT,
        },
        |repeated| &repeated.transparent,
    )?;
    repeated(
        encoder,
        targets,
        &Family {
            name: "grpc_client_call_hedges",
            help: "Attempts beside the first one, in a call that had any.",
            scale: Scale::One,
            bounds: &REPEATS,
        },
        |repeated| &repeated.hedges,
    )
}

/// How the numbers that were counted become those that are shown.
#[derive(Clone, Copy)]
enum Scale {
    /// Counted in nanoseconds.
    Seconds,
    Bytes,
    /// Numbers of something.
    One,
}

impl Scale {
    fn unit(self) -> Option<&'static Unit> {
        match self {
            Self::Seconds => Some(&Unit::Seconds),
            Self::Bytes => Some(&Unit::Bytes),
            Self::One => None,
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "sums past 2^53 are good to fifteen digits")]
    fn shown(self, counted: u64) -> f64 {
        match self {
            // Divided and not multiplied by 1e-9, which has no exact binary form: 0.3 is shown as 0.3.
            Self::Seconds => counted as f64 / 1e9,
            Self::Bytes | Self::One => counted as f64,
        }
    }
}

/// A family of histograms.
struct Family<const N: usize> {
    name: &'static str,
    help: &'static str,
    scale: Scale,
    bounds: &'static Bounds<N>,
}

impl<const N: usize> Family<N> {
    fn begin<'s>(&self, encoder: &'s mut DescriptorEncoder<'_>) -> Result<MetricEncoder<'s>, fmt::Error> {
        encoder.encode_descriptor(self.name, self.help, self.scale.unit(), MetricType::Histogram)
    }

    /// One series. One that nobody has counted in is left out.
    fn series(
        &self,
        family: &mut MetricEncoder<'_>,
        labels: &impl EncodeLabelSet,
        histogram: &Histogram<N>,
    ) -> fmt::Result {
        let (counts, sum) = histogram.read();
        let count = counts.iter().sum();
        if count == 0 {
            return Ok(());
        }
        let bounds = self.bounds.upper().iter().map(|bound| self.scale.shown(*bound)).chain([f64::INFINITY]);
        let buckets: Vec<_> = bounds.zip(counts).collect();
        let none: Option<&HashMap<usize, Exemplar<NoLabelSet, f64>>> = None;
        family.encode_family(labels)?.encode_histogram(self.scale.shown(sum), count, &buckets, none)
    }
}

fn started(encoder: &mut DescriptorEncoder<'_>, targets: &[Arc<Target>]) -> fmt::Result {
    let help = "Attempts that began, finished or not.";
    let mut family = encoder.encode_descriptor("grpc_client_attempt_started", help, None, MetricType::Counter)?;
    for target in targets {
        for (name, method) in target.stats().methods() {
            let started = method.started.load(Ordering::Relaxed);
            if started > 0 {
                let labels = [("grpc_target", target.service()), ("grpc_method", name)];
                family.encode_family(&labels)?.encode_counter::<NoLabelSet, u64, f64>(&started, None)?;
            }
        }
    }
    Ok(())
}

fn ended<const N: usize>(
    encoder: &mut DescriptorEncoder<'_>,
    targets: &[Arc<Target>],
    family: &Family<N>,
    histogram: impl Fn(&Ended) -> &Histogram<N>,
) -> fmt::Result {
    let mut shown = family.begin(encoder)?;
    for target in targets {
        for (name, method) in target.stats().methods() {
            for (code, ended) in method.ended() {
                let labels =
                    [("grpc_target", target.service()), ("grpc_method", name), ("grpc_status", status::name(code))];
                family.series(&mut shown, &labels, histogram(ended))?;
            }
        }
    }
    Ok(())
}

fn repeated<const N: usize>(
    encoder: &mut DescriptorEncoder<'_>,
    targets: &[Arc<Target>],
    family: &Family<N>,
    histogram: impl Fn(&Repeated) -> &Histogram<N>,
) -> fmt::Result {
    let mut shown = family.begin(encoder)?;
    for target in targets {
        for (name, method) in target.stats().methods() {
            if let Some(repeated) = method.repeats.get() {
                let labels = [("grpc_target", target.service()), ("grpc_method", name)];
                family.series(&mut shown, &labels, histogram(repeated))?;
            }
        }
    }
    Ok(())
}
