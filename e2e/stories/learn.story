# What the server says of itself, of its resources, and of who may do what.
$ kubectl version
Client Version: v1.37[..]
Kustomize Version: [..]
Server Version: v1.37.2+trimtab
$ kubectl cluster-info | head -2
Kubernetes control plane is running at https://127.0.0.1:6443
kube-dns is running at https://127.0.0.1:6443/api/v1/namespaces/kube-system/services/kube-dns:dns/proxy
$ kubectl config view | grep -e server -e key
    server: https://127.0.0.1:6443
    client-key-data: DATA+OMITTED
$ kubectl get --raw '/readyz?verbose' | tail -1
readyz check passed
$ kubectl explain deployment.spec.replicas | head -5
GROUP:      apps
KIND:       Deployment
VERSION:    v1
FIELD: replicas <integer>
...
$ kubectl explain pod.spec.containers.livenessProbe.httpGet | grep -e port -e scheme -e enum
  port	<IntOrString> -required-
...
  scheme	<string>
  enum: HTTP, HTTPS
$ kubectl explain deployment --recursive | grep -e matchLabels -e maxSurge
      matchLabels	<map[string]string>
...
        maxSurge	<IntOrString>
...
$ kubectl explain pod.spec.nothing 2>&1 | tail -1
error: field "nothing" does not exist
$ kubectl api-resources --api-group=apps --no-headers | awk '{print $1}'
controllerrevisions
daemonsets
deployments
replicasets
statefulsets
$ kubectl api-resources --namespaced=false -o name --verbs=create,list | head -3
namespaces
nodes
persistentvolumes
$ kubectl api-versions | grep -e ^apps -e ^v1 -e ^batch
apps/v1
batch/v1
v1
$ kubectl auth can-i create pods
yes
$ kubectl auth can-i create pods --as=nobody
no
exit 1
$ kubectl auth can-i --list | head -2
Resources[..]Non-Resource URLs[..]Resource Names[..]Verbs
*.*[..][*]
$ kubectl auth can-i --list --as=nobody --as-group=system:authenticated | awk '/selfsubject/{print $1, $NF}'
selfsubjectreviews.authentication.k8s.io [create]
selfsubjectaccessreviews.authorization.k8s.io [create]
selfsubjectrulesreviews.authorization.k8s.io [create]
$ kubectl auth whoami | head -3
ATTRIBUTE[..]VALUE
Username[..]kubernetes-admin
Groups[..][system:masters system:authenticated]
$ kubectl create token default --duration=10m > $WORK/token; kubectl --kubeconfig=/dev/null --server=https://127.0.0.1:6443 --certificate-authority=$DATA/pki/ca.crt --token=$(cat $WORK/token) auth whoami -o jsonpath='{.status.userInfo.username}'
system:serviceaccount:default:default
$ kubectl create token default --duration=1m
error: failed to create token: TokenRequest.authentication.k8s.io "" is invalid: spec.expirationSeconds: Invalid value: 60: may not specify a duration less than 10 minutes
exit 1
$ kubectl get events --field-selector=reason=ScalingReplicaSet --no-headers | head -1
[..]Normal[..]ScalingReplicaSet[..]deployment/web[..]Scaled up replica set web-[..]
