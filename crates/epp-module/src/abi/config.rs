//! A filter's configuration in Envoy.

use smallvec::SmallVec;

use super::*;

/// A configuration of Envoy's, of one filter.
#[derive(Debug)]
pub struct Config(Raw);

// SAFETY: the methods say on which threads they may be called; it has no state of its own.
unsafe impl Send for Config {}

/// The kind of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// Only up.
    Counter,
    /// Any value.
    Gauge,
}

impl Config {
    /// Wraps the pointer that Envoy passes to hooks.
    ///
    /// # Safety
    ///
    /// It must not be used any more once the hook has returned that destroys the configuration.
    pub unsafe fn new(config: Raw) -> Self {
        Self(config)
    }

    /// Defines a metric with labels. Returns its number. Only before the hook that makes the configuration returns.
    pub fn define(&self, kind: MetricKind, name: &str, labels: &[&str]) -> Option<usize> {
        let labels: SmallVec<[ModuleBytes; 8]> =
            labels.iter().map(|label| (*label).into()).collect();
        let mut id = 0;
        let define = match kind {
            MetricKind::Counter => envoy_dynamic_module_callback_http_filter_config_define_counter,
            MetricKind::Gauge => envoy_dynamic_module_callback_http_filter_config_define_gauge,
        };
        // SAFETY: everything pointed to lives through the call.
        let result = unsafe { define(self.0, name.into(), labels.as_ptr(), labels.len(), &mut id) };
        (result == 0).then_some(id)
    }

    /// Adds to a counter, or sets a gauge, under as many values of labels as it was defined with. Threads of Envoy's
    /// only.
    pub fn update(&self, kind: MetricKind, id: usize, labels: &[String], value: u64) {
        let labels: SmallVec<[ModuleBytes; 8]> =
            labels.iter().map(|label| label.as_str().into()).collect();
        let update = match kind {
            MetricKind::Counter => {
                envoy_dynamic_module_callback_http_filter_config_increment_counter
            }
            MetricKind::Gauge => envoy_dynamic_module_callback_http_filter_config_set_gauge,
        };
        // SAFETY: everything pointed to lives through the call. A failure leaves the metric out.
        unsafe { update(self.0, id, labels.as_ptr(), labels.len(), value) };
    }

    /// Returns what has the main thread run the hook of a scheduled event. Main thread only.
    pub fn scheduler(&self) -> ConfigScheduler {
        // SAFETY: there is the configuration.
        ConfigScheduler(unsafe {
            envoy_dynamic_module_callback_http_filter_config_scheduler_new(self.0)
        })
    }

    /// Sends a request without a body through a cluster; its response arrives under the number that is returned. Main
    /// thread only.
    pub fn call(
        &self,
        cluster: &str,
        headers: &[(&str, &str)],
        timeout_ms: u64,
    ) -> Result<u64, CalloutRefused> {
        const NO_CLUSTER: u32 = 2;
        let headers = raw(headers);
        let mut id = 0;
        // SAFETY: everything pointed to lives through the call.
        let result = unsafe {
            envoy_dynamic_module_callback_http_filter_config_http_callout(
                self.0,
                &mut id,
                cluster.into(),
                headers.as_ptr(),
                headers.len(),
                ModuleBytes::NONE,
                timeout_ms,
            )
        };
        match result {
            0 => Ok(id),
            NO_CLUSTER => Err(CalloutRefused::NoCluster),
            _ => Err(CalloutRefused::Other),
        }
    }
}

/// Wakes the main thread.
#[derive(Debug)]
pub struct ConfigScheduler(Raw);

// SAFETY: its functions may be called on any thread.
unsafe impl Send for ConfigScheduler {}

impl ConfigScheduler {
    /// Has the main thread run the hook, after what it does now.
    pub fn wake(&self) {
        // SAFETY: it exists until it is dropped.
        unsafe { envoy_dynamic_module_callback_http_filter_config_scheduler_commit(self.0, 0) }
    }
}

impl Drop for ConfigScheduler {
    fn drop(&mut self) {
        // SAFETY: it exists, and is not used after this.
        unsafe { envoy_dynamic_module_callback_http_filter_config_scheduler_delete(self.0) }
    }
}
