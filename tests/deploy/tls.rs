//! Model servers behind TLS: an Envoy in front of them that requires a client certificate.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use serde_json::{json, Value};

/// Writes an authority, a server's certificate for this name, and a client's.
pub fn write_certificates(folder: &Path, server: &str) {
    fs::create_dir_all(folder).unwrap();
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    // Issuer and server must differ in name.
    let name = &mut authority.distinguished_name;
    name.push(DnType::CommonName, "an authority of this test's");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    fs::write(folder.join("ca.crt"), authority.pem()).unwrap();
    for (file, name) in [("server", server), ("client", "llm-gateway")] {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap();
        fs::write(folder.join(format!("{file}.crt")), certificate.pem()).unwrap();
        fs::write(folder.join(format!("{file}.key")), key.serialize_pem()).unwrap();
    }
}

/// An Envoy that takes TLS off: from these plain ports to the ports in front of them.
pub fn terminator(certificates: &Path, fronts: &BTreeMap<u64, u16>) -> String {
    let file = |name: &str| json!({"filename": certificates.join(name)});
    let tls = json!({
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "require_client_certificate": true,
        "common_tls_context": {
            "tls_certificates": [{"certificate_chain": file("server.crt"), "private_key": file("server.key")}],
            "validation_context": {"trusted_ca": file("ca.crt")},
        },
    });
    let at = |port: u64| json!({"socket_address": {"address": "127.0.0.1", "port_value": port}});
    let listener = |(plain, front): (&u64, &u16)| {
        json!({"address": at(u64::from(*front)), "filter_chains": [{
        "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": tls},
        "filters": [{"name": "envoy.filters.network.tcp_proxy", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": "front", "cluster": plain.to_string()}}]}]})
    };
    let cluster = |plain: &u64| {
        json!({"name": plain.to_string(), "type": "STATIC", "load_assignment": {"cluster_name": "pod",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": at(*plain)}}]}]}})
    };
    let listeners: Vec<Value> = fronts.iter().map(listener).collect();
    let clusters: Vec<Value> = fronts.keys().map(cluster).collect();
    json!({"static_resources": {"listeners": listeners, "clusters": clusters}}).to_string()
}
