//! What went wrong -> a status and a sentence.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::super::error::{Chain, StoreError};
use crate::protocol::{NAMES_MAX, Problem};

impl StoreError {
    fn status(&self) -> StatusCode {
        match self {
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NotFound { .. } => StatusCode::NOT_FOUND,
            Self::Missing { .. } => StatusCode::CONFLICT,
            Self::Name(_) | Self::Request(_) | Self::Body => StatusCode::BAD_REQUEST,
            Self::TooLong(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NotTheChunk | Self::NotTheImage | Self::Manifest(_) => {
                StatusCode::UNPROCESSABLE_ENTITY
            }
            Self::NoRoom(_) => StatusCode::INSUFFICIENT_STORAGE,
            Self::TooMany | Self::NoTurn => StatusCode::TOO_MANY_REQUESTS,
            Self::Busy | Self::TooLate { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::Backend { .. } | Self::Sync { .. } if self.is_full() => {
                StatusCode::INSUFFICIENT_STORAGE
            }
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl IntoResponse for StoreError {
    fn into_response(self) -> Response {
        let status = self.status();
        let mut problem = Problem {
            error: self.to_string(),
            missing: Vec::new(),
        };
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            // The one place where such an error ends. What it says is for the administrator, not for the client.
            tracing::error!(error = %Chain(&self), "a request failed");
            problem.error = "the store failed, its log says why".into();
        }
        if let Self::Missing { mut chunks } = self {
            chunks.truncate(NAMES_MAX);
            problem.missing = chunks;
        }
        let mut response = (status, Json(problem)).into_response();
        let headers = response.headers_mut();
        match status {
            StatusCode::UNAUTHORIZED => {
                let scheme = HeaderValue::from_static("Bearer");
                headers.insert(header::WWW_AUTHENTICATE, scheme);
            }
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
        response
    }
}
