# An operator as people write them, with controller-runtime: webhooks, a custom resource, a finalizer, leader election.
$ kubectl apply -f ../operator/crd.yaml
customresourcedefinition.apiextensions.k8s.io/widgets.operator.trimtab.test created
$ kubectl wait --for=condition=Established crd/widgets.operator.trimtab.test --timeout=20s
customresourcedefinition.apiextensions.k8s.io/widgets.operator.trimtab.test condition met
$ mkdir -p $WORK/certs && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=operator -addext subjectAltName=IP:127.0.0.1 -keyout $WORK/certs/tls.key -out $WORK/certs/tls.crt 2>/dev/null
$ setsid $OPERATOR --identity one --cert-dir $WORK/certs --webhook-port 9443 >$WORK/one.log 2>&1 & echo $! >$WORK/one.pid
~ kubectl get lease operator.trimtab.test -o jsonpath='{.spec.leaseTransitions}'
0
$ setsid $OPERATOR --identity two --cert-dir $WORK/certs --webhook-port 9444 >$WORK/two.log 2>&1 & echo $! >$WORK/two.pid
~ curl -sk -o /dev/null -w '%{http_code}\n' https://127.0.0.1:9443/ && curl -sk -o /dev/null -w '%{http_code}\n' https://127.0.0.1:9444/
404
404
$ sed "s/\$PORT/9443/; s/\$CA/$(base64 -w0 $WORK/certs/tls.crt)/" ../operator/webhooks.yaml | kubectl apply -f -
mutatingwebhookconfiguration.admissionregistration.k8s.io/operator.trimtab.test created
validatingwebhookconfiguration.admissionregistration.k8s.io/operator.trimtab.test created
# The webhook's default, and what comes of it.
~ kubectl apply -f ../operator/widget.yaml >/dev/null && kubectl get widget w -o jsonpath='{.spec.replicas}'
1
~ kubectl get widget w --no-headers | awk '{print $1, $2, $3}'
w 1 1
$ kubectl get configmap w-0 -o jsonpath='{.data.message} {.data.by} {.metadata.ownerReferences[0].kind}'
hello one Widget
# What the webhook refuses and warns of.
$ kubectl patch widget w --type=merge -p '{"spec":{"replicas":9}}'
Error from server (Forbidden): admission webhook "check.operator.trimtab.test" denied the request: spec.replicas: 9 is more than 5
exit 1
$ kubectl patch widget w --type=merge -p '{"spec":{"replicas":0}}'
Warning: spec.replicas: 0 keeps nothing
widget.operator.trimtab.test/w patched
~ kubectl get widget w --no-headers | awk '{print $1, $2, $3}'
w 0 0
$ kubectl patch widget w --type=merge -p '{"spec":{"replicas":3}}'
widget.operator.trimtab.test/w patched
~ kubectl get widget w --no-headers | awk '{print $1, $2, $3}'
w 3 3
# What is owned comes back.
$ kubectl delete configmap w-2
configmap "w-2" deleted from default namespace
~ kubectl get configmap w-2 -o jsonpath='{.data.by}'
one
# The leader dies; the other takes over when the lease has run out.
$ sed "s/\$PORT/9444/; s/\$CA/$(base64 -w0 $WORK/certs/tls.crt)/" ../operator/webhooks.yaml | kubectl apply -f -
mutatingwebhookconfiguration.admissionregistration.k8s.io/operator.trimtab.test configured
validatingwebhookconfiguration.admissionregistration.k8s.io/operator.trimtab.test configured
$ kill -KILL $(cat $WORK/one.pid)
~ kubectl get configmap w-2 -o jsonpath='{.data.by}'
two
# The finalizer says farewell before the Widget goes, and what it owned is collected.
$ kubectl delete widget w
widget.operator.trimtab.test "w" deleted from default namespace
$ kubectl get configmap w-farewell -o jsonpath='{.data.message}'
farewell, hello
~ kubectl get configmaps -l operator.trimtab.test/widget=w
No resources found in default namespace.
$ kill $(cat $WORK/two.pid)
$ kubectl delete -f ../operator/crd.yaml
customresourcedefinition.apiextensions.k8s.io "widgets.operator.trimtab.test" deleted
$ kubectl delete mutatingwebhookconfiguration,validatingwebhookconfiguration operator.trimtab.test
mutatingwebhookconfiguration.admissionregistration.k8s.io "operator.trimtab.test" deleted
validatingwebhookconfiguration.admissionregistration.k8s.io "operator.trimtab.test" deleted
$ kubectl delete configmap w-farewell
configmap "w-farewell" deleted from default namespace
