// A native search field with its label; it reports its text when the user pauses.
const PAUSE = 200; // milliseconds

export default {
  template: `
    <label class="k-field">
      <span>{{ label }}</span>
      <input type="search" v-model="text" :placeholder="hint" autocomplete="off" spellcheck="false" @input="schedule" />
    </label>
  `,
  props: { label: String, hint: String, start: String },
  emits: ["search"],
  data() {
    return { text: this.start };
  },
  methods: {
    schedule() {
      clearTimeout(this.waiting);
      this.waiting = setTimeout(() => this.$emit("search", this.text), PAUSE);
    },
  },
  beforeUnmount() {
    clearTimeout(this.waiting);
  },
};
