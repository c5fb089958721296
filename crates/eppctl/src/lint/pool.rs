//! Names that control planes give a pool's cluster.

/// An Istio cluster: `outbound|PORT|SUBSET|HOST`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct IstioCluster<'s> {
    /// The Service's port.
    pub port: &'s str,
    /// The DestinationRule's subset; empty for the whole Service.
    pub subset: &'s str,
    /// The Service's fully qualified name.
    pub host: &'s str,
}

/// Parses an Istio cluster name.
pub fn istio(cluster: &str) -> Option<IstioCluster<'_>> {
    let mut parts = cluster.strip_prefix("outbound|")?.splitn(3, '|');
    Some(IstioCluster {
        port: parts.next()?,
        subset: parts.next()?,
        host: parts.next()?,
    })
}

impl IstioCluster<'_> {
    /// Returns whether a host names this Service; a short name is relative to its own namespace.
    pub fn is_host(&self, written: &str, namespace: &str) -> bool {
        let begins = |prefix: &str| {
            let rest = self.host.strip_prefix(prefix);
            rest.is_some_and(|rest| rest.starts_with('.'))
        };
        match written {
            "" => false,
            _ if written == self.host => true,
            _ if written.contains('.') || namespace.is_empty() => begins(written),
            _ => begins(&format!("{written}.{namespace}")),
        }
    }

    /// Returns whether Istio generated this Service for an InferencePool.
    pub fn is_of_inference_pool(&self) -> bool {
        let name = self.host.split('.').next().unwrap_or_default();
        let hash = name.rsplit_once("-ip-").map_or("", |(_, hash)| hash);
        hash.len() == 8 && hash.chars().all(|digit| digit.is_ascii_hexdigit())
    }

    /// Returns whether Istio generated this Service for the given InferencePool.
    pub fn is_inference_pool(&self, pool: &str, namespace: &str) -> bool {
        let rest = self.host.strip_prefix(pool);
        let Some((_, rest)) = rest.and_then(|rest| rest.strip_prefix("-ip-")?.split_once('.'))
        else {
            return false;
        };
        namespace.is_empty() || rest.split('.').next() == Some(namespace)
    }
}

/// An Envoy Gateway cluster: `httproute/NAMESPACE/NAME/rule/INDEX`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct GatewayCluster<'s> {
    /// The HTTPRoute's namespace.
    pub namespace: &'s str,
    /// The HTTPRoute's name.
    pub route: &'s str,
    /// The rule's index in it.
    pub rule: usize,
}

/// Parses an Envoy Gateway cluster name.
pub fn envoy_gateway(cluster: &str) -> Option<GatewayCluster<'_>> {
    let mut parts = cluster.strip_prefix("httproute/")?.split('/');
    let (namespace, route) = (parts.next()?, parts.next()?);
    let rule = (parts.next()? == "rule").then(|| parts.next()?.parse().ok())??;
    Some(GatewayCluster {
        namespace,
        route,
        rule,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn istios_clusters_are_read() {
        let cluster = istio("outbound|8000|v1|vllm.llm.svc.cluster.local").unwrap();
        assert_eq!((cluster.port, cluster.subset), ("8000", "v1"));
        for (host, namespace, expected) in [
            ("vllm.llm.svc.cluster.local", "", true),
            ("vllm.llm", "other", true),
            ("vllm", "llm", true),
            ("vllm", "other", false),
            ("vllm", "", true),
            ("vll", "", false),
            ("", "", false),
        ] {
            assert_eq!(cluster.is_host(host, namespace), expected, "{host}");
        }
        assert!(istio("inference-pool").is_none());
        let pool = istio("outbound|54321||llama-ip-fc5a1047.llm.svc").unwrap();
        assert!(pool.is_inference_pool("llama", "llm"));
        assert!(!pool.is_inference_pool("llama", "other"));
        assert!(!pool.is_inference_pool("lla", "llm"));
    }

    #[test]
    fn envoy_gateways_clusters_are_read() {
        let cluster = envoy_gateway("httproute/llm/vllm/rule/2").unwrap();
        assert_eq!(
            (cluster.namespace, cluster.route, cluster.rule),
            ("llm", "vllm", 2)
        );
        assert!(envoy_gateway("httproute/llm/vllm").is_none());
        assert!(envoy_gateway("grpcroute/llm/vllm/rule/0").is_none());
    }
}
