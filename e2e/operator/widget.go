package main

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion is the group and version of Widget, as crd.yaml defines it.
var GroupVersion = schema.GroupVersion{Group: "operator.trimtab.test", Version: "v1"}

// WidgetSpec is what a user asks for.
type WidgetSpec struct {
	// Replicas is the number of ConfigMaps to keep; the webhook sets 1 where it is absent.
	Replicas *int32 `json:"replicas,omitempty"`
	// Message is what each of them says.
	Message string `json:"message"`
}

// WidgetStatus is what the operator has seen.
type WidgetStatus struct {
	Ready              int32 `json:"ready"`
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
}

// Widget is the custom resource.
type Widget struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              WidgetSpec   `json:"spec"`
	Status            WidgetStatus `json:"status,omitempty"`
}

// WidgetList is a list of them.
type WidgetList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Widget `json:"items"`
}

// DeepCopyObject is part of runtime.Object.
func (w *Widget) DeepCopyObject() runtime.Object {
	out := *w
	w.ObjectMeta.DeepCopyInto(&out.ObjectMeta)
	if w.Spec.Replicas != nil {
		replicas := *w.Spec.Replicas
		out.Spec.Replicas = &replicas
	}
	return &out
}

// DeepCopyObject is part of runtime.Object.
func (l *WidgetList) DeepCopyObject() runtime.Object {
	out := WidgetList{TypeMeta: l.TypeMeta}
	l.ListMeta.DeepCopyInto(&out.ListMeta)
	for i := range l.Items {
		out.Items = append(out.Items, *l.Items[i].DeepCopyObject().(*Widget))
	}
	return &out
}

func addToScheme(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(GroupVersion, &Widget{}, &WidgetList{})
	metav1.AddToGroupVersion(scheme, GroupVersion)
	return nil
}
