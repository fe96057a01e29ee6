// A native select with its label.
export default {
  template: `
    <label class="k-field">
      <span>{{ label }}</span>
      <select :value="value" @change="$emit('choose', $event.target.value)">
        <option v-for="option in options" :key="option.value" :value="option.value">{{ option.text }}</option>
      </select>
    </label>
  `,
  props: { label: String, options: Array, value: String },
  emits: ["choose"],
};
