//! Pages of lists: how many, from where, and the form they are answered in. Every list that is paged is paged this way.
//!
//! Before this: `extract.rs`. After this: the lists of `streams.rs`, `recordings.rs` and `api_webhooks/log.rs`.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::problem::{FieldError, Problem};

/// Items on a page unless asked otherwise, and at most.
pub const PAGE: u32 = 20;
pub const PAGE_MAX: u32 = 100;
/// Items that can be skipped.
const SKIP_MAX: u32 = 10_000_000;

/// Which part of a list.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// Items to leave out at the start.
    #[param(minimum = 0, maximum = 10_000_000, default = 0)]
    pub skip: u32,
    /// Items on a page.
    #[param(minimum = 1, maximum = 100, default = 20)]
    pub limit: u32,
}

impl Default for PageQuery {
    fn default() -> Self {
        Self { skip: 0, limit: PAGE }
    }
}

impl PageQuery {
    /// The same, if there can be such a page.
    pub fn checked(self) -> Result<Self, Problem> {
        let wrong = wrong_fields(self.skip, self.limit);
        match wrong.is_empty() {
            true => Ok(self),
            false => Err(Problem::invalid(wrong)),
        }
    }

    pub fn page<T>(&self, items: Vec<T>, total: u64) -> Page<T> {
        Page {
            items,
            total,
            skip: self.skip,
            limit: self.limit,
        }
    }
}

/// What is not right about a page: nothing, one or both.
pub fn wrong_fields(skip: u32, limit: u32) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    if skip > SKIP_MAX {
        wrong.push(FieldError::new("skip", &format!("0 to {SKIP_MAX}")));
    }
    if !(1..=PAGE_MAX).contains(&limit) {
        wrong.push(FieldError::new("limit", &format!("1 to {PAGE_MAX}")));
    }
    wrong
}

/// One page of a list, the newest first.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// How many there are, on all pages together.
    #[schema(minimum = 0)]
    pub total: u64,
    pub skip: u32,
    pub limit: u32,
}

const _: () = assert!(PAGE_MAX == 100 && SKIP_MAX == 10_000_000, "the schemas above say so");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_can_not_be_is_refused_with_every_field_that_is_wrong() {
        let refused = |skip, limit| {
            let problem = PageQuery { skip, limit }.checked().unwrap_err();
            problem.errors.into_iter().map(|e| e.field).collect::<Vec<_>>()
        };
        assert_eq!(refused(SKIP_MAX + 1, 0), ["skip", "limit"]);
        assert_eq!(refused(0, PAGE_MAX + 1), ["limit"]);
        assert!(
            PageQuery {
                skip: SKIP_MAX,
                limit: PAGE_MAX
            }
            .checked()
            .is_ok()
        );
    }
}
