//! What operators ask for: admin rules, and the end of a service.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::{Context, Decision, Draft};
use crate::catalog::{
    AdminRule, AdminState, Answer, CatalogError, Invalid, Key, Overlay, Record, RuleSet, Selector, ServiceKey,
};

/// How long a rule with an end may hold.
const EXPIRY: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(30 * 24 * 3_600);

/// Sets a rule, or takes it back. The service has to be known, since a rule for a mistyped name would wait in silence;
/// the instances it means need not be there yet.
pub(super) fn set_rule(on: &Overlay<'_>, rule: &RuleSet, context: Context) -> Result<Decision, CatalogError> {
    let RuleSet { service, selector, state, expires_in } = rule;
    if let Some(asked) = expires_in.filter(|asked| !EXPIRY.contains(asked)) {
        return Err(Invalid::ExpiryOutOfRange { asked }.into());
    }
    if !on.is_known(service) {
        return Err(CatalogError::UnknownService { service: service.clone() });
    }
    let answer = Answer::Selected(on.selected(service, selector));
    let key = Key::Rule(service.clone(), selector.clone());
    let held = on.rule(service, selector);
    let wanted = (*state != AdminState::Enabled)
        .then_some(AdminRule { state: *state, until: expires_in.map(|after| context.now.after(after)) });
    if held == wanted {
        return Ok(Decision::nothing(answer));
    }
    let max = context.limits.rules_per_service;
    if held.is_none() && on.rules(service).len() >= max {
        return Err(CatalogError::TooManyRules { service: service.clone(), max });
    }
    let mut draft = Draft::new(on);
    draft.touch(service);
    match wanted {
        Some(rule) => draft.put(key, Record::Rule(rule)),
        None => draft.delete(key),
    }
    Ok(Decision { proposal: draft.proposal(context), answer })
}

/// A rule's own end has come, if it has not been set anew.
pub(super) fn end_rule(on: &Overlay<'_>, service: &ServiceKey, selector: &Selector, context: Context) -> Decision {
    let ended = on.rule(service, selector).and_then(|rule| rule.until).is_some_and(|until| until <= context.now);
    if !ended {
        return Decision::nothing(Answer::Done);
    }
    let mut draft = Draft::new(on);
    if on.is_known(service) {
        draft.touch(service);
    }
    draft.delete(Key::Rule(service.clone(), selector.clone()));
    Decision { proposal: draft.proposal(context), answer: Answer::Done }
}

/// Forgets a service and its rules. What is remembered of its instances stays: a start that said goodbye is not let back
/// in by deleting its service.
pub(super) fn delete_service(
    on: &Overlay<'_>,
    service: &ServiceKey,
    context: Context,
) -> Result<Decision, CatalogError> {
    let instances = on.live_in(service);
    if instances > 0 {
        return Err(CatalogError::ServiceInUse { service: service.clone(), instances });
    }
    if !on.is_known(service) {
        return Ok(Decision::nothing(Answer::Done));
    }
    let mut draft = Draft::new(on);
    draft.delete(Key::Service(service.clone()));
    for selector in on.rules(service) {
        draft.delete(Key::Rule(service.clone(), selector));
    }
    Ok(Decision { proposal: draft.proposal(context), answer: Answer::Done })
}
