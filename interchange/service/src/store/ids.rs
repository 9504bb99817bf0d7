//! Statements about many rows that are chosen by their ids.

use sqlx::{Database, Encode, QueryBuilder, Type};
use uuid::Uuid;

/// Ends a statement that lacks the list after its `IN`.
pub(super) fn push_ids<DB: Database>(query: &mut QueryBuilder<DB>, ids: &[Uuid])
where
    Uuid: for<'value> Encode<'value, DB> + Type<DB>,
{
    query.push(" (");
    let mut list = query.separated(", ");
    for id in ids {
        list.push_bind(*id);
    }
    query.push(")");
}

/// Executes a statement for all of the ids, as many at a time as one statement may name: its pieces, each with the value
/// that stands between it and the next; after the last piece, which ends with `IN`, comes the list.
macro_rules! execute_by_ids {
    ($tx:ident, $ids:expr, $($piece:expr $(, $value:expr)?);+) => {
        for ids in $ids.chunks($crate::store::ROWS_PER_STATEMENT) {
            let mut query = sqlx::QueryBuilder::new("");
            $(
                query.push($piece);
                $(query.push_bind($value);)?
            )+
            $crate::store::ids::push_ids(&mut query, ids);
            query.build().execute(&mut *$tx).await?;
        }
    };
}
pub(super) use execute_by_ids;

/// The same in a transaction of its own, if there are any ids.
macro_rules! update_by_ids {
    ($store:expr, $ids:expr, $($pieces:tt)+) => {
        if !$ids.is_empty() {
            $crate::store::transaction!($store, tx => {
                $crate::store::ids::execute_by_ids!(tx, $ids, $($pieces)+);
            });
        }
    };
}
pub(super) use update_by_ids;

/// The rows for all of the ids, read in the same way: `$select` ends with `IN`, and after the list comes `$end`.
macro_rules! fetch_by_ids {
    ($connection:expr, $ids:expr, $select:expr $(, $end:expr)?) => {{
        let mut rows = Vec::with_capacity($ids.len());
        for ids in $ids.chunks($crate::store::ROWS_PER_STATEMENT) {
            let mut query = sqlx::QueryBuilder::new($select);
            $crate::store::ids::push_ids(&mut query, ids);
            $(query.push($end);)?
            rows.extend(query.build().fetch_all($connection).await?);
        }
        rows
    }};
}
pub(super) use fetch_by_ids;
