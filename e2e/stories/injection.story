# A webhook that runs in a pod behind a ClusterIP gives pods a sidecar.
$ openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=injector -addext subjectAltName=DNS:injector.default.svc -keyout $WORK/injector.key -out $WORK/injector.crt 2>/dev/null
$ kubectl create secret tls injector --cert=$WORK/injector.crt --key=$WORK/injector.key
secret/injector created
$ sed "s#PROGRAMS#$PROGRAMS#; s#BUNDLE#$(base64 -w0 $WORK/injector.crt)#" manifests/injector.yaml | kubectl apply -f -
deployment.apps/injector created
service/injector created
mutatingwebhookconfiguration.admissionregistration.k8s.io/injector created
$ kubectl rollout status deployment/injector --timeout=60s | tail -1
deployment "injector" successfully rolled out
$ kubectl get service injector -o jsonpath='{.spec.clusterIP}'
10.96.[..]
# The pod's endpoint follows its readiness.
~ kubectl run dry --image=busybox --labels=inject=yes --dry-run=server -o jsonpath='{.spec.initContainers[*].name} {.spec.containers[*].name}'
beside dry
$ sed 's/{app: box}/{app: box, inject: "yes"}/' manifests/box.yaml | kubectl create -f -
pod/box created
$ kubectl wait --for=condition=Ready pod/box --timeout=60s
pod/box condition met
$ kubectl get pod box --no-headers | awk '{print $2, $3}'
2/2 Running
$ kubectl logs box -c beside
beside box
$ kubectl delete pod box
pod "box" deleted from default namespace
# Others are none of its business, and without it nobody gets in.
$ kubectl create -f manifests/box.yaml -o jsonpath='{.spec.initContainers}'
$ kubectl delete pod box
pod "box" deleted from default namespace
$ kubectl scale deployment injector --replicas=0
deployment.apps/injector scaled
~ kubectl run shut --image=busybox --labels=inject=yes
Error from server (InternalError): Internal error occurred: failed calling webhook "injector.trimtab.test": failed to call webhook: [..]no endpoints available for service "injector"
exit 1
$ sed "s#PROGRAMS#$PROGRAMS#; s#BUNDLE##" manifests/injector.yaml | kubectl delete -f - | cut -d' ' -f1,2
deployment.apps "injector"
service "injector"
mutatingwebhookconfiguration.admissionregistration.k8s.io "injector"
$ kubectl delete secret injector
secret "injector" deleted from default namespace
