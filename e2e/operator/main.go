// An operator as people write them with controller-runtime: a custom resource, owned objects, a finalizer, a status,
// two webhooks and leader election. It knows nothing of the server that it runs against.
package main

import (
	"flag"
	"os"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/webhook"
)

func main() {
	identity := flag.String("identity", "one", "what this process calls itself in the objects that it writes")
	certs := flag.String("cert-dir", ".", "where tls.crt and tls.key of the webhooks are")
	port := flag.Int("webhook-port", 9443, "where the webhooks listen, on 127.0.0.1")
	flag.Parse()
	ctrl.SetLogger(zap.New())
	if err := run(*identity, *certs, *port); err != nil {
		ctrl.Log.Error(err, "the operator ended")
		os.Exit(1)
	}
}

func run(identity, certs string, port int) error {
	scheme := runtime.NewScheme()
	if err := clientgoscheme.AddToScheme(scheme); err != nil {
		return err
	}
	if err := addToScheme(scheme); err != nil {
		return err
	}
	config, err := ctrl.GetConfig()
	if err != nil {
		return err
	}
	manager, err := ctrl.NewManager(config, ctrl.Options{
		Scheme:                  scheme,
		LeaderElection:          true,
		LeaderElectionID:        "operator.trimtab.test",
		LeaderElectionNamespace: "default",
		Metrics:                 server.Options{BindAddress: "0"},
		WebhookServer:           webhook.NewServer(webhook.Options{Host: "127.0.0.1", Port: port, CertDir: certs}),
	})
	if err != nil {
		return err
	}
	reconciler := &Reconciler{Client: manager.GetClient(), Identity: identity}
	if err := ctrl.NewControllerManagedBy(manager).For(&Widget{}).Owns(&corev1.ConfigMap{}).Complete(reconciler); err != nil {
		return err
	}
	hooks := ctrl.NewWebhookManagedBy(manager, &Widget{}).WithDefaulter(Webhook{}).WithValidator(Webhook{})
	if err := hooks.Complete(); err != nil {
		return err
	}
	return manager.Start(ctrl.SetupSignalHandler())
}
