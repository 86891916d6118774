//! Every route of every service: a tree of path segments, and who claimed what first.

use std::collections::HashMap;
use std::sync::Arc;

use http::Method;

use super::route::{Route, Rpc, ServiceRoutes};
use super::template::{CAPTURES_MAX, SEGMENTS_MAX, Segment, Template};

/// Longest path that can match, in bytes.
pub const PATH_BYTES_MAX: usize = 8 << 10;

/// The routes of all services; never changes.
#[derive(Debug, Default)]
pub struct RouteTable {
    root: Node,
    /// By gRPC path.
    rpcs: HashMap<Box<str>, Arc<Rpc>>,
    /// In the order in which they were claimed.
    listed: Vec<Listed>,
}

/// A route at a path of its own, or at its path without a version.
#[derive(Clone, Debug)]
pub struct Listed {
    /// What is called.
    pub route: Arc<Route>,
    /// The path template where it stands.
    pub path: String,
    /// Whether that is the unversioned path of a versioned route.
    pub alias: bool,
}

/// A claim of what is another service's already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// HTTP method and path, or the gRPC path.
    pub claim: String,
    /// The service that keeps it.
    pub holder: String,
    /// The service that is refused.
    pub refused: String,
}

/// What stands at a path.
#[derive(Debug)]
pub enum Found<'t, 'p> {
    /// A route.
    Route(Matched<'t, 'p>),
    /// Only other HTTP methods, sorted.
    OtherMethods(Vec<Method>),
    /// Nothing.
    Nothing,
}

/// A route and what its path says.
#[derive(Debug)]
pub struct Matched<'t, 'p> {
    /// The route.
    pub route: &'t Arc<Route>,
    /// What stands where the template has fields.
    pub captures: Captures<'p>,
}

/// The segments that fill a template's fields, in order, still percent-encoded.
#[derive(Clone, Copy, Debug, Default)]
pub struct Captures<'p> {
    texts: [&'p str; CAPTURES_MAX],
    len: usize,
}

impl<'p> Captures<'p> {
    /// The texts in the order of the path.
    pub fn iter(&self) -> impl Iterator<Item = &'p str> {
        self.texts.into_iter().take(self.len)
    }

    fn push(&mut self, text: &'p str) {
        if let Some(slot) = self.texts.get_mut(self.len) {
            *slot = text;
            self.len += 1;
        }
    }
}

#[derive(Debug, Default)]
struct Node {
    literals: HashMap<Box<str>, Node>,
    capture: Option<Box<Node>>,
    leaves: Vec<Leaf>,
}

#[derive(Debug)]
struct Leaf {
    verb: Option<Box<str>>,
    method: Method,
    route: Arc<Route>,
}

impl Node {
    /// Another service that has a route of the same HTTP method and verb below here, which some path matches that these segments
    /// match too. A path goes to the more literal of two templates, so without this `/v1/users/17` would take one user away from
    /// `/v1/users/{user_id}`.
    fn in_the_way(&self, segments: &[Segment], verb: Option<&str>, route: &Route) -> Option<String> {
        let Some((segment, rest)) = segments.split_first() else {
            let held = |leaf: &&Leaf| {
                leaf.method == *route.verb() && leaf.verb.as_deref() == verb && leaf.route.service() != route.service()
            };
            return self.leaves.iter().find(held).map(|leaf| leaf.route.service().to_owned());
        };
        let below = |node: &Self| node.in_the_way(rest, verb, route);
        let by_literal = match segment {
            Segment::Literal(text) => self.literals.get(text).and_then(below),
            Segment::Capture(_) => self.literals.values().find_map(below),
        };
        by_literal.or_else(|| self.capture.as_deref().and_then(below))
    }
}

impl RouteTable {
    /// Puts the claims together, the first service's first: what one has claimed no later one gets, and neither any path that it
    /// would match. Below all of them come unversioned paths: of the routes `/vN/collection...` of a service those of the
    /// highest N are also found without `/vN`.
    pub fn build(claims: impl IntoIterator<Item = Arc<ServiceRoutes>>) -> (Self, Vec<Conflict>) {
        Self::build_beside(&Self::default(), claims)
    }

    /// The same beside what is reserved: its methods and paths are for the services that hold them there, whether they claim
    /// them or not.
    pub fn build_beside(
        reserved: &Self,
        claims: impl IntoIterator<Item = Arc<ServiceRoutes>>,
    ) -> (Self, Vec<Conflict>) {
        let claims: Vec<Arc<ServiceRoutes>> = claims.into_iter().collect();
        let mut table = Self::default();
        let mut conflicts = Vec::new();
        for service in &claims {
            for rpc in &service.rpcs {
                let path = rpc.grpc_path().path();
                let of_another = reserved.rpcs.get(path).filter(|holder| holder.service() != service.service());
                match of_another.or_else(|| table.rpcs.get(path)) {
                    Some(holder) => conflicts.push(Conflict {
                        claim: rpc.grpc_path().to_string(),
                        holder: holder.service().to_owned(),
                        refused: service.service().to_owned(),
                    }),
                    None => drop(table.rpcs.insert(path.into(), Arc::clone(rpc))),
                }
            }
            for route in &service.routes {
                conflicts.extend(table.claim(reserved, &route.template, route, false));
            }
        }
        for service in &claims {
            let mut newest: HashMap<Segment, u32> = HashMap::new();
            for route in &service.routes {
                if let Some((collection, major)) = versioned(&route.template) {
                    let newest = newest.entry(collection).or_default();
                    *newest = major.max(*newest);
                }
            }
            for route in &service.routes {
                if let Some((collection, major)) = versioned(&route.template)
                    && newest.get(&collection) == Some(&major)
                {
                    conflicts.extend(table.claim(reserved, &route.template.unversioned(), route, true));
                }
            }
        }
        (table, conflicts)
    }

    fn claim(&mut self, reserved: &Self, template: &Template, route: &Arc<Route>, alias: bool) -> Option<Conflict> {
        let in_the_way = |table: &Self| table.root.in_the_way(&template.segments, template.verb.as_deref(), route);
        if let Some(holder) = in_the_way(reserved).or_else(|| in_the_way(self)) {
            return Some(Conflict {
                claim: format!("{} {template}", route.verb()),
                holder,
                refused: route.service().to_owned(),
            });
        }
        let mut node = &mut self.root;
        for segment in &template.segments {
            node = match segment {
                Segment::Literal(text) => node.literals.entry(text.clone()).or_default(),
                Segment::Capture(_) => node.capture.get_or_insert_default(),
            };
        }
        let held = node.leaves.iter().find(|leaf| leaf.method == *route.verb() && leaf.verb == template.verb);
        if let Some(Leaf { route: held, .. }) = held {
            // A service may claim `/users` itself, beside `/v1/users`.
            return (!alias || held.service() != route.service()).then(|| Conflict {
                claim: format!("{} {template}", route.verb()),
                holder: held.service().to_owned(),
                refused: route.service().to_owned(),
            });
        }
        node.leaves.push(Leaf { verb: template.verb.clone(), method: route.verb().clone(), route: Arc::clone(route) });
        self.listed.push(Listed { route: Arc::clone(route), path: template.to_string(), alias });
        None
    }

    /// What stands at a path. Literal segments go before fields, a known `:verb` before a text with a colon. Segments are compared before
    /// percent-decoding, so `%3A` and `%2F` never separate.
    pub fn find<'t, 'p>(&'t self, method: &Method, path: &'p str) -> Found<'t, 'p> {
        let Some(rest) = path.strip_prefix('/').filter(|_| path.len() <= PATH_BYTES_MAX) else {
            return Found::Nothing;
        };
        let mut search = Search { method, others: Vec::new() };
        match search.descend(&self.root, rest, Captures::default(), 1) {
            Some(matched) => Found::Route(matched),
            None if search.others.is_empty() => Found::Nothing,
            None => {
                search.others.sort_by(|one, other| one.as_str().cmp(other.as_str()));
                search.others.dedup();
                Found::OtherMethods(search.others)
            }
        }
    }

    /// A method by its gRPC path, whether it has a route or not.
    pub fn rpc(&self, grpc_path: &str) -> Option<&Arc<Rpc>> {
        self.rpcs.get(grpc_path)
    }

    /// Every route, in the order in which they were claimed, unversioned paths last.
    pub fn routes(&self) -> &[Listed] {
        &self.listed
    }
}

/// The collection below the version, and the version.
fn versioned(template: &Template) -> Option<(Segment, u32)> {
    Some((template.segments.get(1)?.clone(), template.major()?))
}

struct Search<'m> {
    method: &'m Method,
    others: Vec<Method>,
}

impl Search<'_> {
    /// Looks below a node; `rest` is the path from this segment on. Visits a node at most once, since a tree has one way to each.
    fn descend<'t, 'p>(
        &mut self,
        node: &'t Node,
        rest: &'p str,
        captures: Captures<'p>,
        depth: usize,
    ) -> Option<Matched<'t, 'p>> {
        if depth > SEGMENTS_MAX {
            return None;
        }
        let (segment, rest) = match rest.split_once('/') {
            Some((segment, rest)) => (segment, Some(rest)),
            None => (rest, None),
        };
        let Some(rest) = rest else {
            if let Some((text, verb)) = segment.rsplit_once(':') {
                match self.last(node, text, Some(verb), captures) {
                    Ended::Known(matched) => return matched,
                    Ended::Unknown => {}
                }
            }
            return match self.last(node, segment, None, captures) {
                Ended::Known(matched) => matched,
                Ended::Unknown => None,
            };
        };
        if let Some(below) = node.literals.get(segment)
            && let Some(matched) = self.descend(below, rest, captures, depth + 1)
        {
            return Some(matched);
        }
        let below = node.capture.as_deref().filter(|_| !segment.is_empty())?;
        let mut captures = captures;
        captures.push(segment);
        self.descend(below, rest, captures, depth + 1)
    }

    /// The last segment and its verb.
    fn last<'t, 'p>(
        &mut self,
        node: &'t Node,
        segment: &'p str,
        verb: Option<&str>,
        captures: Captures<'p>,
    ) -> Ended<'t, 'p> {
        let mut known = false;
        let literal = node.literals.get(segment).map(|below| (below, captures));
        let capture = node.capture.as_deref().filter(|_| !segment.is_empty()).map(|below| {
            let mut captures = captures;
            captures.push(segment);
            (below, captures)
        });
        for (below, captures) in literal.into_iter().chain(capture) {
            for leaf in below.leaves.iter().filter(|leaf| leaf.verb.as_deref() == verb) {
                if leaf.method == *self.method {
                    return Ended::Known(Some(Matched { route: &leaf.route, captures }));
                }
                known = true;
                self.others.push(leaf.method.clone());
            }
        }
        if known { Ended::Known(None) } else { Ended::Unknown }
    }
}

enum Ended<'t, 'p> {
    /// Something stands there, if for other methods.
    Known(Option<Matched<'t, 'p>>),
    Unknown,
}
