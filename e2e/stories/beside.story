# Two instances of Trimtab on one machine, each with its own pods.
$ kubectl apply -f manifests/web.yaml
deployment.apps/web created
service/web created
$ kubectl rollout status deployment/web --timeout=60s | tail -1
deployment "web" successfully rolled out
$ kubectl --kubeconfig $WORK/beside/admin.kubeconfig get nodes,deployments -A -o name
node/beside
deployment.apps/web
deployment.apps/cluster-dns
