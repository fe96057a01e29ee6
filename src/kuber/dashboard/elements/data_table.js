// A semantic table whose rows keep their identity, so that focus and selection outlive an update.
import { ago, absolute } from "kuber-clock";

export default {
  template: `
    <div class="k-scroll" role="region" tabindex="0" :aria-label="caption">
      <table class="k-table">
        <caption class="k-unseen">{{ caption }}</caption>
        <thead>
          <tr>
            <th v-for="column in columns" :key="column.name" scope="col" :class="[column.kind, { wide: column.wide }]"
                :aria-sort="column.sortable ? order(column) : undefined">
              <button v-if="column.sortable" type="button" @click="$emit('sort', column.name)">
                {{ column.label }}<span class="k-arrow" aria-hidden="true">{{ arrow(column) }}</span>
              </button>
              <template v-else>{{ column.label }}</template>
            </th>
          </tr>
        </thead>
        <tbody>
          <tr v-for="row in rows" :key="row.key" :class="{ muted: row.muted, chosen: row.chosen }" :data-key="row.key">
            <component v-for="(column, place) in columns" :key="column.name" :is="place ? 'td' : 'th'"
                       :scope="place ? undefined : 'row'" :class="[column.kind, { wide: column.wide }]"
                       :data-column="column.name">
              <template v-if="row.cells[place] === null">
                <span v-if="column.kind !== 'spark'" class="k-soft">–</span>
              </template>
              <time v-else-if="column.kind === 'time'" :datetime="new Date(row.cells[place]).toISOString()"
                    :title="absolute(row.cells[place])">{{ ago(clock - row.cells[place]) }}</time>
              <svg v-else-if="column.kind === 'spark'" viewBox="0 0 100 24" preserveAspectRatio="none" aria-hidden="true">
                <polyline :points="row.cells[place]" />
              </svg>
              <span v-else-if="column.kind === 'share'" class="k-share">
                <span class="k-bar" aria-hidden="true"><span :style="{ width: 100 * row.cells[place].share + '%' }"></span></span>
                <span>{{ row.cells[place].text }}</span>
              </span>
              <span v-else-if="column.kind === 'state'" class="k-state" :class="row.cells[place].tone">{{ row.cells[place].text }}</span>
              <template v-else v-for="(part, number) in parts(row.cells[place])" :key="number">
                <template v-if="number">, </template>
                <span v-if="part.tone" class="k-dot" :class="part.tone"><span class="k-unseen">{{ part.label }}</span></span>
                <a v-if="part.href" :href="part.href" :target="part.target">{{ part.text }}</a>
                <template v-else>{{ part.text }}</template>
              </template>
            </component>
          </tr>
          <tr v-if="!rows.length"><td class="k-nothing" :colspan="columns.length">{{ empty }}</td></tr>
        </tbody>
      </table>
    </div>
  `,
  props: {
    caption: String,
    columns: Array,
    rows: Array,
    sort: String,
    descending: Boolean,
    empty: String,
    now: Number, // the server's clock when the rows were sent, in milliseconds
  },
  emits: ["sort"],
  data() {
    return { clock: this.now, ahead: this.now - Date.now() };
  },
  watch: {
    now(value) {
      this.ahead = value - Date.now();
      this.clock = value;
    },
  },
  mounted() {
    if (this.columns.some((column) => column.kind === "time")) {
      this.ticking = setInterval(() => (this.clock = Date.now() + this.ahead), 1000);
    }
  },
  beforeUnmount() {
    clearInterval(this.ticking);
  },
  methods: {
    ago,
    absolute,
    parts(cell) {
      const all = Array.isArray(cell) ? cell : [cell];
      return all.map((part) => (typeof part === "object" ? part : { text: part }));
    },
    order(column) {
      return column.name !== this.sort ? "none" : this.descending ? "descending" : "ascending";
    },
    arrow(column) {
      return column.name !== this.sort ? "" : this.descending ? " ▼" : " ▲";
    },
  },
};
