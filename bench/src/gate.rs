//! The budgets of a call (DESIGN §8), judged.
//!
//! Only counts are: times depend on who else is on the machine.

use crate::contestant::Contestant;
use crate::failure::Failure;
use crate::instructions::Cost;
use crate::report;

/// Everything on, over three ports of one server process.
const MESH: Contestant = Contestant::Mesh { endpoints: 3 };
/// Those whose costs the budgets compare.
pub(crate) const CONTESTANTS: [Contestant; 3] = [Contestant::Channel, Contestant::RawH2, MESH];

/// Most instructions of a call over three endpoints, as a share of a bare channel's to one.
const SHARE_OF_CHANNEL_MAX: f64 = 0.70;
/// Most instructions that everything the mesh does may add to bare h2.
const OVER_RAW_H2_MAX: f64 = 2_500.0;
/// Most allocations of a call. The floor has 22 of them: the stub's, the codec's and h2's own.
const ALLOCATIONS_MAX: f64 = 22.0;
/// A table that grows once in the measured calls is no allocation a call.
const ALLOCATIONS_SLACK: f64 = 0.1;

/// One line for each budget, or those that are missed as the error.
pub(crate) fn judge(costs: &[Cost]) -> Result<Vec<String>, Failure> {
    let cost = |contestant: Contestant| {
        costs
            .iter()
            .find(|cost| cost.contestant == contestant)
            .ok_or_else(|| Failure::Child(format!("{contestant} was not measured")))
    };
    let (channel, floor, mesh) = (cost(Contestant::Channel)?, cost(Contestant::RawH2)?, cost(MESH)?);
    let share = mesh.instructions / channel.instructions;
    let over_floor = mesh.instructions - floor.instructions;
    let verdicts = [
        (
            share <= SHARE_OF_CHANNEL_MAX,
            format!("mesh-3 has {share:.3} of a tonic channel's instructions, at most {SHARE_OF_CHANNEL_MAX:.2}"),
        ),
        (
            over_floor <= OVER_RAW_H2_MAX,
            format!(
                "mesh-3 has {} instructions more than raw h2, at most {}",
                report::grouped(over_floor),
                report::grouped(OVER_RAW_H2_MAX)
            ),
        ),
        (
            mesh.allocations <= ALLOCATIONS_MAX + ALLOCATIONS_SLACK,
            format!("mesh-3 has {:.1} allocations, at most {ALLOCATIONS_MAX}", mesh.allocations),
        ),
    ];
    let (kept, missed): (Vec<_>, Vec<_>) = verdicts.into_iter().partition(|(is_kept, _)| *is_kept);
    let lines = |verdicts: Vec<(bool, String)>| verdicts.into_iter().map(|(_, line)| line).collect();
    if missed.is_empty() { Ok(lines(kept)) } else { Err(Failure::Missed(lines(missed))) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::echo::Stub;

    fn costs(channel: f64, floor: f64, mesh: f64, allocations: f64) -> Vec<Cost> {
        let cost = |contestant, instructions| Cost {
            contestant,
            stub: Stub::Bare,
            payload_bytes: 32,
            instructions,
            allocations,
            bytes: 20_000.0,
        };
        vec![cost(Contestant::Channel, channel), cost(Contestant::RawH2, floor), cost(MESH, mesh)]
    }

    #[test]
    fn budgets_that_are_kept_are_said() {
        assert_eq!(judge(&costs(70_000.0, 44_000.0, 46_000.0, 22.01)).unwrap().len(), 3);
    }

    #[test]
    fn each_budget_that_is_missed_is_named() {
        let missed = |costs: &[Cost]| match judge(costs) {
            Err(Failure::Missed(lines)) => lines,
            other => panic!("{other:?}"),
        };
        assert!(missed(&costs(60_000.0, 44_000.0, 46_000.0, 22.0))[0].contains("0.767"));
        assert!(missed(&costs(70_000.0, 44_000.0, 46_501.0, 22.0))[0].contains("2 501"));
        assert!(missed(&costs(70_000.0, 44_000.0, 46_000.0, 23.0))[0].contains("23.0 allocations"));
        assert_eq!(missed(&costs(60_000.0, 44_000.0, 50_000.0, 30.0)).len(), 3);
    }

    #[test]
    fn what_was_not_measured_is_not_passed() {
        assert!(judge(&[]).is_err());
    }
}
