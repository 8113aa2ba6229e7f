//! TokenReview and SelfSubjectReview: who is this, who am I.

use std::sync::Arc;

use api::{Document, Status, StatusResult, Timestamp, time};
use serde_json::{Map, Value, json};

use super::authenticator::Tokens;
use crate::attributes::{Attributes, User};
use crate::parts::Answer;
use crate::view::View;

/// Answers TokenReviews.
pub(super) struct TokenReviews(pub(super) Arc<Tokens>);

impl Answer for TokenReviews {
    fn answer(&self, mut review: Document, _: &Attributes, view: &dyn View, now: Timestamp) -> StatusResult<Document> {
        let token = review.str_at("/spec/token").to_owned();
        if token.is_empty() {
            return Err(Status::bad_request("token is required for TokenReview in authentication"));
        }
        let asked = review.list_at("/spec/audiences").iter().filter_map(Value::as_str).map(str::to_owned);
        let mut audiences: Vec<String> = asked.collect();
        if audiences.is_empty() {
            audiences = self.0.audiences();
        }
        let status = match self.0.bearer(&token, &audiences, view, now) {
            Some(mut bearer) => {
                if !bearer.user.is_in("system:authenticated") {
                    bearer.user.groups.push("system:authenticated".into());
                }
                json!({"authenticated": true, "user": info(&bearer.user), "audiences": bearer.audiences})
            }
            None => json!({"user": {}, "error": "invalid bearer token"}),
        };
        review.set("/status", status);
        Ok(review)
    }
}

/// Answers SelfSubjectReviews.
pub(super) struct SelfSubjectReviews;

impl Answer for SelfSubjectReviews {
    fn answer(
        &self,
        mut review: Document,
        attributes: &Attributes,
        _: &dyn View,
        now: Timestamp,
    ) -> StatusResult<Document> {
        review.set("/metadata/creationTimestamp", time::rfc3339(now));
        review.set("/status/userInfo", info(&attributes.user));
        Ok(review)
    }
}

/// A user as `authentication.k8s.io/v1` `UserInfo`.
pub(crate) fn info(user: &User) -> Value {
    let mut info = Map::new();
    let mut put = |key: &str, value: Value| info.insert(key.into(), value);
    if !user.name.is_empty() {
        put("username", user.name.as_str().into());
    }
    if !user.uid.is_empty() {
        put("uid", user.uid.as_str().into());
    }
    if !user.groups.is_empty() {
        put("groups", user.groups.clone().into());
    }
    if !user.extra.is_empty() {
        put("extra", json!(user.extra));
    }
    info.into()
}
