//! An object store by its URL: `s3://BUCKET/PREFIX`, with AWS's own environment variables.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use object_store::RetryConfig;
use object_store::aws::AmazonS3Builder;

use super::backend::Backend;
use super::error::StoreError;

/// How long it may be away before a request fails. A client waits for half a minute, and then tries again itself.
const PATIENCE: Duration = Duration::from_secs(15);

/// Opens it. That it answers is seen when it is listed.
pub(super) fn open(url: &str) -> Result<Backend, StoreError> {
    let rest = url.strip_prefix("s3://").unwrap_or_default();
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.is_empty() {
        return Err(StoreError::Configuration {
            what: "--objects".into(),
            why: "it is s3://BUCKET or s3://BUCKET/PREFIX".into(),
        });
    }
    // reqwest has no cryptography of its own here. Another part of the process may have chosen the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let objects = AmazonS3Builder::from_env()
        .with_bucket_name(bucket)
        .with_retry(RetryConfig {
            max_retries: 4,
            retry_timeout: PATIENCE,
            ..RetryConfig::default()
        })
        .build()
        .map_err(|error| StoreError::Open {
            what: url.into(),
            source: io::Error::other(error),
        })?;
    Ok(Backend::objects(Arc::new(objects), prefix))
}
