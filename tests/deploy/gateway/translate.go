// Prints what Envoy Gateway makes of the resources on standard input, with Envoy Gateway's own translators:
// Envoy's bootstrap, the xDS resources, and the conditions that the policies get. Stands in for the part of
// the server that needs Kubernetes; `egctl x translate` is not enough, as it knows neither EndpointSlices nor
// Wasm modules. scripts/envoy-gateway compiles it inside Envoy Gateway's module, whose packages are internal.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"

	cachetype "github.com/envoyproxy/go-control-plane/pkg/cache/types"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/encoding/protojson"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwapiv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"

	egv1a1 "github.com/envoyproxy/gateway/api/v1alpha1"
	"github.com/envoyproxy/gateway/internal/gatewayapi"
	"github.com/envoyproxy/gateway/internal/gatewayapi/resource"
	"github.com/envoyproxy/gateway/internal/infrastructure/common"
	"github.com/envoyproxy/gateway/internal/ir"
	"github.com/envoyproxy/gateway/internal/logging"
	"github.com/envoyproxy/gateway/internal/wasm"
	"github.com/envoyproxy/gateway/internal/xds/bootstrap"
	"github.com/envoyproxy/gateway/internal/xds/translator"
)

// modules says where Envoy Gateway's own server would have put a module, without fetching one.
type modules struct{}

func (modules) Start(context.Context) {}

func (modules) Get(string, *wasm.GetOptions) (string, string, error) {
	const digest = "0000000000000000000000000000000000000000000000000000000000000000"
	return "https://envoy-gateway:18002/" + digest + ".wasm", digest, nil
}

func main() {
	if err := translate(); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func translate() error {
	gateway := egv1a1.DefaultEnvoyGateway()
	gateway.ExtensionAPIs = &egv1a1.ExtensionAPISettings{EnableEnvoyPatchPolicy: true}
	resources, err := read(gateway)
	if err != nil {
		return err
	}
	logger := logging.DefaultLogger(io.Discard, egv1a1.LogLevelInfo)
	// As internal/gatewayapi/runner has it.
	first := gatewayapi.Translator{
		GatewayControllerName:   gateway.Gateway.ControllerName,
		GatewayClassName:        gwapiv1.ObjectName(resources.GatewayClass.Name),
		EnvoyPatchPolicyEnabled: true,
		ControllerNamespace:     "envoy-gateway-system",
		MergeGateways:           gatewayapi.IsMergeGatewaysEnabled(resources),
		MergeBackends:           gatewayapi.ResolveMergeBackendsConfig(resources),
		WasmCache:               modules{},
		Logger:                  logger,
	}
	made, err := first.Translate(context.Background(), resources)
	if err != nil {
		return err
	}
	if len(made.XdsIR) != 1 {
		return fmt.Errorf("%d gateways, expected one", len(made.XdsIR))
	}
	for name, intermediate := range made.XdsIR {
		second := translator.Translator{
			ControllerNamespace: "envoy-gateway-system",
			FilterOrder:         intermediate.FilterOrder,
			Logger:              logger,
		}
		table, err := second.Translate(context.Background(), intermediate)
		if err != nil {
			fmt.Fprintln(os.Stderr, "warning:", err)
		}
		started, err := startedWith(made.InfraIR[name].Proxy)
		if err != nil {
			return err
		}
		printed := map[string]any{
			"version":    os.Getenv("ENVOY_GATEWAY"),
			"bootstrap":  started,
			"conditions": conditions(made, intermediate),
		}
		for key, kind := range map[string]string{
			"listeners": resourcev3.ListenerType,
			"routes":    resourcev3.RouteType,
			"clusters":  resourcev3.ClusterType,
			"endpoints": resourcev3.EndpointType,
		} {
			if printed[key], err = messages(table.XdsResources[kind]); err != nil {
				return err
			}
		}
		text, err := yaml.Marshal(printed)
		if err != nil {
			return err
		}
		fmt.Print(string(text))
	}
	return nil
}

// read reads the resources as the file provider does, and what it leaves out: EndpointSlices, and which Gateway
// an EnvoyProxy is for.
func read(gateway *egv1a1.EnvoyGateway) (*resource.Resources, error) {
	text, err := io.ReadAll(os.Stdin)
	if err != nil {
		return nil, err
	}
	var slices []*discoveryv1.EndpointSlice
	var rest bytes.Buffer
	err = resource.IterYAMLBytes(text, func(document []byte) error {
		var slice discoveryv1.EndpointSlice
		if err := yaml.Unmarshal(document, &slice); err == nil && slice.Kind == "EndpointSlice" {
			slices = append(slices, &slice)
			return nil
		}
		if slice.Kind == "" {
			// Comments alone.
			return nil
		}
		rest.Write(bytes.TrimPrefix(document, []byte("---\n")))
		rest.WriteString("\n---\n")
		return nil
	})
	if err != nil {
		return nil, err
	}
	resources, err := resource.LoadResourcesFromYAMLBytes(rest.Bytes(), false, gateway)
	if err != nil {
		return nil, err
	}
	resources.EndpointSlices = slices
	for _, one := range resources.Gateways {
		if one.Spec.Infrastructure != nil && one.Spec.Infrastructure.ParametersRef != nil {
			resources.EnvoyProxiesForGateways = append(resources.EnvoyProxiesForGateways, resources.EnvoyProxyForGatewayClass)
			resources.EnvoyProxyForGatewayClass = nil
		}
	}
	return resources, nil
}

// startedWith returns the bootstrap in the arguments that internal/infrastructure/kubernetes gives Envoy.
func startedWith(proxy *ir.ProxyInfra) (any, error) {
	options := &bootstrap.RenderBootstrapConfigOptions{
		SdsConfig: bootstrap.SdsConfigPath{
			Certificate: "/sds/" + common.SdsCertFilename,
			TrustedCA:   "/sds/" + common.SdsCAFilename,
		},
	}
	if proxy.Config != nil && proxy.Config.Spec.Telemetry != nil {
		options.ProxyMetrics = proxy.Config.Spec.Telemetry.Metrics
	}
	arguments, err := common.BuildProxyArgs(proxy, nil, options, "$(ENVOY_POD_NAME)", false)
	if err != nil {
		return nil, err
	}
	for index, argument := range arguments {
		if argument == "--config-yaml" {
			var started any
			return started, yaml.Unmarshal([]byte(arguments[index+1]), &started)
		}
	}
	return nil, fmt.Errorf("no --config-yaml in %v", arguments)
}

func messages(resources []cachetype.Resource) ([]any, error) {
	var all []any
	for _, one := range resources {
		text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(one)
		if err != nil {
			return nil, err
		}
		var message any
		if err := json.Unmarshal(text, &message); err != nil {
			return nil, err
		}
		all = append(all, message)
	}
	return all, nil
}

// conditions returns what `kubectl get` shows of the policies: whether each is accepted, and programmed.
func conditions(made *gatewayapi.TranslateResult, intermediate *ir.Xds) map[string]map[string]string {
	found := map[string]map[string]string{}
	add := func(kind, name string, ancestors []gwapiv1.PolicyAncestorStatus) {
		for _, ancestor := range ancestors {
			for _, condition := range ancestor.Conditions {
				key := kind + "/" + name
				if found[key] == nil {
					found[key] = map[string]string{}
				}
				said := string(condition.Status)
				if condition.Status != metav1.ConditionTrue {
					said += ": " + condition.Message
				}
				found[key][condition.Type] = said
			}
		}
	}
	for _, one := range made.ClientTrafficPolicies {
		add("ClientTrafficPolicy", one.Name, one.Status.Ancestors)
	}
	for _, one := range made.BackendTrafficPolicies {
		add("BackendTrafficPolicy", one.Name, one.Status.Ancestors)
	}
	for _, one := range made.EnvoyExtensionPolicies {
		add("EnvoyExtensionPolicy", one.Name, one.Status.Ancestors)
	}
	for _, one := range made.EnvoyPatchPolicies {
		add("EnvoyPatchPolicy", one.Name, one.Status.Ancestors)
	}
	for _, one := range intermediate.EnvoyPatchPolicies {
		add("EnvoyPatchPolicy", one.Name, one.Status.Ancestors)
	}
	return found
}
