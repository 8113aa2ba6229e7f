# A node's identity without a token: a certificate request that an administrator approves.
$ openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout $WORK/n2.key -subj /O=system:nodes/CN=system:node:n2 -out $WORK/n2.csr 2>/dev/null
$ printf '{"apiVersion":"certificates.k8s.io/v1","kind":"CertificateSigningRequest","metadata":{"name":"n2"},"spec":{"signerName":"kubernetes.io/kube-apiserver-client-kubelet","usages":["client auth","digital signature"],"request":"%s"}}' $(base64 -w0 $WORK/n2.csr) | kubectl create -f -
certificatesigningrequest.certificates.k8s.io/n2 created
$ kubectl certificate approve n2
certificatesigningrequest.certificates.k8s.io/n2 approved
$ kubectl wait --for=jsonpath='{.status.certificate}' csr/n2 --timeout=30s
certificatesigningrequest.certificates.k8s.io/n2 condition met
$ kubectl get csr n2 --no-headers | awk '{print $NF}'
Approved,Issued
$ kubectl get csr n2 -o jsonpath='{.status.certificate}' | base64 -d > $WORK/n2.crt
$ kubectl config --kubeconfig=$WORK/n2.kubeconfig set-cluster trimtab --server=https://$NODE_IP:6443 --certificate-authority=$DATA/pki/ca.crt --embed-certs
Cluster "trimtab" set.
$ kubectl config --kubeconfig=$WORK/n2.kubeconfig set-credentials n2 --client-certificate=$WORK/n2.crt --client-key=$WORK/n2.key --embed-certs
User "n2" set.
$ kubectl config --kubeconfig=$WORK/n2.kubeconfig set-context n2 --cluster=trimtab --user=n2 >/dev/null && kubectl config --kubeconfig=$WORK/n2.kubeconfig use-context n2
Switched to context "n2".
